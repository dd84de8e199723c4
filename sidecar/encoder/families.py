"""The known families, by transformers' `model_type`."""

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
    read_xlm_roberta,
)
from sidecar.encoder.distilbert import longest_distilbert_row, read_distilbert
from sidecar.encoder.mpnet import longest_mpnet_row, read_mpnet

Reader: TypeAlias = Callable[[Mapping[str, Any], Callable[[str], Float32], Head | None], Encoder]


@dataclass(frozen=True, slots=True)
class Family:
    """How a family is read.

    `prefix` may stand before its tensors' names; `longest_row` returns how many tokens its
    positions bear, by its config. Both functions raise `UnsupportedModelError` for a variant
    that no graph here computes, and `ValueError` for a field that makes no sense.
    """

    read: Reader
    prefix: str
    longest_row: Callable[[Mapping[str, Any]], int]


FAMILIES: Mapping[str, Family] = {
    "bert": Family(read_bert, "bert.", longest_bert_row),
    "electra": Family(read_electra, "electra.", longest_bert_row),
    "ernie": Family(read_ernie, "ernie.", longest_bert_row),
    "roberta": Family(read_roberta, "roberta.", longest_roberta_row),
    "xlm-roberta": Family(read_xlm_roberta, "roberta.", longest_roberta_row),
    "camembert": Family(read_xlm_roberta, "roberta.", longest_roberta_row),
    "mpnet": Family(read_mpnet, "mpnet.", longest_mpnet_row),
    "distilbert": Family(read_distilbert, "distilbert.", longest_distilbert_row),
}
