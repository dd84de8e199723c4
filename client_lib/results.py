"""What a caller gets back, and how it is read from a reply.

Fields that this version does not know are ignored; one that is missing or does not fit is a
`ProtocolError`, since then the daemon is not one that this client can use.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from client_lib.wire.errors import BadRequest, ProtocolError
from client_lib.wire.messages import PRECISION_EXPECTED, PRECISIONS, Precision

T = TypeVar("T", bound="Usage | Timings")


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens the request was; special tokens count."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the daemon spent the request's time (milliseconds), and the batch it was part of.

    `cached_rows` were not computed, `shared_rows` were for an equal text that was asked then.
    """

    queue_ms: float
    tokenize_ms: float
    compute_ms: float
    total_ms: float
    batch_rows: int
    batch_tokens: int
    cached_rows: int
    shared_rows: int


# How the vectors of each precision travel. Binary ones have eight dimensions a byte.
_DTYPES: Mapping[Precision, str] = {
    "float32": "<f4", "float16": "<f2",
    "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1",
}  # fmt: skip
_USAGE = tuple(f.name for f in fields(Usage))
_TIMINGS = tuple(f.name for f in fields(Timings))


@dataclass(frozen=True, slots=True, eq=False)
class EmbedReply:
    """Vectors [n, d], row i for text i; `truncated` lists the texts that were cut.

    They are float32, or of the precision that was asked for, as `dtype_of` and `Client.embed` say.
    """

    model: str
    vectors: NDArray[Any]
    usage: Usage
    timings: Timings
    truncated: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RerankResult:
    """One document, by its index in the request, and how relevant it is: more is better."""

    index: int
    relevance_score: float


@dataclass(frozen=True, slots=True)
class RerankReply:
    """Documents, the most relevant first.

    `method` says what scored them, "cross_encoder" or "embedding"; `truncated` lists the
    documents that were cut.
    """

    model: str
    method: str
    results: tuple[RerankResult, ...]
    usage: Usage
    timings: Timings
    truncated: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Metrics as text, and the content type by which HTTP would announce it."""

    content_type: str
    text: str


def dtype_of(precision: Precision) -> np.dtype[Any]:
    """Return what vectors of `precision` are made of: int8 for "binary", uint8 for "ubinary".

    Raises `BadRequest`, naming those that there are, for any other.
    """
    if precision not in PRECISIONS:
        raise BadRequest(f"precision must be {PRECISION_EXPECTED}, not {precision!r:.80}")
    return np.dtype(_DTYPES[precision]).newbyteorder("=")


def read_embed(body: Mapping[str, Any], rows: int, precision: Precision = "float32") -> EmbedReply:
    """Return the reply to `embed` of `rows` texts; its vectors are the caller's to write to."""
    with _reading("embed"):
        return EmbedReply(
            model=_text(body["model"]),
            vectors=view_vectors(body, rows, precision).astype(dtype_of(precision)),
            usage=_record(Usage, _USAGE, body["usage"]),
            timings=_record(Timings, _TIMINGS, body["timings"]),
            truncated=_indexes(body["truncated"]),
        )


def view_vectors(
    body: Mapping[str, Any], rows: int, precision: Precision = "float32"
) -> NDArray[Any]:
    """Return the vectors in a reply to `embed` of `rows` texts, [rows, d] of `precision`.

    They are a read-only view of the reply's own bytes. Raises `ProtocolError` where dtype,
    shape and bytes do not agree with each other or with `rows`.
    """
    with _reading("embed"):
        table = body["vectors"]
        shape, data, dtype = tuple(map(_count, table["shape"])), table["data"], table["dtype"]
        expected = np.dtype(_DTYPES[precision])
        if dtype != expected.name:
            # A daemon ignores what it does not know; an old one so answers in float32.
            raise ProtocolError(f"embed: {dtype} vectors for precision {precision}")
        if len(shape) != 2 or shape[0] != rows:  # noqa: PLR2004 - [n, d]
            raise ProtocolError(f"embed: vectors of shape {shape} for {rows} texts")
        if len(data) != expected.itemsize * math.prod(shape):
            raise ProtocolError(f"embed: {len(data)} bytes for {dtype} vectors of shape {shape}")
        return np.frombuffer(data, expected).reshape(shape)


def read_rerank(body: Mapping[str, Any], documents: int) -> RerankReply:
    """Return the reply to `rerank` of that many `documents`."""
    with _reading("rerank"):
        hits = tuple(
            RerankResult(r["index"], _number(r["relevance_score"])) for r in body["results"]
        )
        if not all(_count(hit.index) < documents for hit in hits):
            raise ProtocolError(f"rerank: a result's index is not below {documents}")
        return RerankReply(
            model=_text(body["model"]),
            method=_text(body["method"]),
            results=hits,
            usage=_record(Usage, _USAGE, body["usage"]),
            timings=_record(Timings, _TIMINGS, body["timings"]),
            truncated=_indexes(body["truncated"]),
        )


def read_status(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the daemon says about itself."""
    with _reading("status"):
        return dict(body["status"])


def read_metrics(body: Mapping[str, Any]) -> MetricsReply:
    """Return the reply to `metrics`."""
    with _reading("metrics"):
        return MetricsReply(_text(body["content_type"]), _text(body["text"]))


@contextmanager
def _reading(op: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ProtocolError(f"the reply to {op} cannot be read: {detail}") from error


def _record(cls: type[T], names: tuple[str, ...], table: Mapping[str, Any]) -> T:
    return cls(*[_number(table[name]) for name in names])


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {value!r:.80}")
    return value


def _indexes(values: list[Any]) -> tuple[int, ...]:
    return tuple(map(_count, values))


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError(f"expected a whole number, got {value!r:.80}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {value!r:.80}")
    return value
