"""The known families, by transformers' `model_type`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.encoder.architecture import Encoder, Float32, Pooling
from sidecar.encoder.bert import ROBERTA_FIRST_POSITION, read_bert, read_roberta
from sidecar.encoder.distilbert import read_distilbert
from sidecar.encoder.mpnet import read_mpnet

Reader: TypeAlias = Callable[[Mapping[str, Any], Callable[[str], Float32], Pooling | None], Encoder]


@dataclass(frozen=True, slots=True)
class Family:
    """How a family is read.

    `prefix` may stand before its tensors' names; the first `first_position` rows of its
    position table are no positions.
    """

    read: Reader
    prefix: str
    first_position: int = 0


FAMILIES: Mapping[str, Family] = {
    "bert": Family(read_bert, "bert."),
    "roberta": Family(read_roberta, "roberta.", ROBERTA_FIRST_POSITION),
    "xlm-roberta": Family(read_roberta, "roberta.", ROBERTA_FIRST_POSITION),
    "mpnet": Family(read_mpnet, "mpnet.", ROBERTA_FIRST_POSITION),
    "distilbert": Family(read_distilbert, "distilbert."),
}
