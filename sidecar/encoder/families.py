"""The supported model families, by `model_type` in transformers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.encoder.architecture import Encoder, Float32, Head
from sidecar.encoder.bert import (
    longest_bert_row,
    longest_roberta_row,
    read_bert,
    read_electra,
    read_ernie,
    read_roberta,
)
from sidecar.encoder.distilbert import read_distilbert
from sidecar.encoder.mpnet import longest_mpnet_row, read_mpnet

Reader: TypeAlias = Callable[[Mapping[str, Any], Callable[[str], Float32], Head | None], Encoder]


@dataclass(frozen=True, slots=True)
class Family:
    """How to read a family's models, given a config with all fields of its class.

    `prefix` optionally starts its tensors' names; `longest_row` returns the number of tokens that
    its position table allows. Both functions raise `UnsupportedModelError` for an unsupported
    variant.
    """

    read: Reader
    prefix: str
    longest_row: Callable[[Mapping[str, Any]], int] = longest_bert_row


FAMILIES: Mapping[str, Family] = {
    "bert": Family(read_bert, "bert."),
    "camembert": Family(read_roberta, "roberta.", longest_roberta_row),
    "distilbert": Family(read_distilbert, "distilbert."),
    "electra": Family(read_electra, "electra."),
    "ernie": Family(read_ernie, "ernie."),
    "mpnet": Family(read_mpnet, "mpnet.", longest_mpnet_row),
    "roberta": Family(read_roberta, "roberta.", longest_roberta_row),
    "xlm-roberta": Family(read_roberta, "roberta.", longest_roberta_row),
}
