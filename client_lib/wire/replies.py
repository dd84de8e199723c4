"""The replies as frozen dataclasses: the daemon calls `to_map`, the client `from_map`.

Unknown fields are ignored. A field that is missing or has the wrong type raises `ProtocolError`:
the peer is not a daemon that this client can use.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from client_lib.wire.errors import BadRequest, ProtocolError
from client_lib.wire.messages import PRECISION_EXPECTED, PRECISIONS, Precision

# Wire format of the vectors. The binary precisions pack eight dimensions into a byte.
_DTYPES: Mapping[Precision, str] = {
    "float32": "<f4", "float16": "<f2",
    "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1",
}  # fmt: skip


class _Numbers:
    """Base of dataclasses that hold only numbers, sent as a map by field name."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]  # the field names, set by `dataclass`

    def to_map(self) -> dict[str, Any]:
        """Return the fields as a map."""
        return {name: getattr(self, name) for name in self.__match_args__}

    @classmethod
    def from_map(cls, table: Mapping[str, Any]) -> Self:
        """Read `table`. Raises `KeyError` or `TypeError` if it does not match the fields."""
        return cls(*[_number(table[name]) for name in cls.__match_args__])


@dataclass(frozen=True, slots=True)
class Usage(_Numbers):
    """The number of tokens in the request, including special tokens."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Timings(_Numbers):
    """How long the request's phases took in the daemon, in milliseconds, and its largest batch.

    `queue_ms` ends when the request's first row starts; `compute_ms` lasts from then until its last
    row is done. `batch_rows` and `batch_tokens` describe the largest batch that contained one of
    its rows. `cached_rows` came from the cache; `shared_rows` shared the computation of an equal
    text.
    """

    queue_ms: float
    tokenize_ms: float
    compute_ms: float
    total_ms: float
    batch_rows: int
    batch_tokens: int
    cached_rows: int
    shared_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class EmbedReply:
    """The vectors [n, d], row i for text i; `truncated` lists the indexes of truncated texts.

    They are float32, or of the requested precision; see `dtype_of` and `Client.embed`.
    """

    model: str
    vectors: NDArray[Any]
    usage: Usage
    timings: Timings
    truncated: tuple[int, ...]

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body, without copying the vectors."""
        vectors = self.vectors
        return {
            "model": self.model,
            "usage": self.usage.to_map(),
            "truncated": self.truncated,
            "timings": self.timings.to_map(),
            "vectors": {
                "dtype": vectors.dtype.name,
                "shape": vectors.shape,
                "data": vectors.data,
            },
        }

    @classmethod
    def from_map(
        cls, body: Mapping[str, Any], rows: int, precision: Precision = "float32"
    ) -> "EmbedReply":
        """Read the reply to an `embed` of `rows` texts; the vectors are a writable copy."""
        with _reading("embed"):
            return cls(
                model=_text(body["model"]),
                vectors=view_vectors(body, rows, precision).astype(dtype_of(precision)),
                usage=Usage.from_map(body["usage"]),
                timings=Timings.from_map(body["timings"]),
                truncated=_indexes(body["truncated"]),
            )


@dataclass(frozen=True, slots=True)
class RerankResult:
    """A document's index in the request, and its relevance; higher is better."""

    index: int
    relevance_score: float


@dataclass(frozen=True, slots=True)
class RerankReply:
    """Documents, the most relevant first.

    `method` is what scored them, "cross_encoder" or "embedding"; `truncated` lists the indexes of
    truncated documents.
    """

    model: str
    method: str
    results: tuple[RerankResult, ...]
    usage: Usage
    timings: Timings
    truncated: tuple[int, ...]

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body."""
        return {
            "model": self.model,
            "usage": self.usage.to_map(),
            "truncated": self.truncated,
            "timings": self.timings.to_map(),
            "method": self.method,
            "results": [
                {"index": hit.index, "relevance_score": hit.relevance_score} for hit in self.results
            ],
        }

    @classmethod
    def from_map(cls, body: Mapping[str, Any], documents: int) -> "RerankReply":
        """Read the reply to a `rerank` of `documents` documents."""
        with _reading("rerank"):
            hits = tuple(
                RerankResult(hit["index"], _number(hit["relevance_score"]))
                for hit in body["results"]
            )
            if not all(_count(hit.index) < documents for hit in hits):
                raise ProtocolError(f"rerank: an index is out of range for {documents} documents")
            return cls(
                model=_text(body["model"]),
                method=_text(body["method"]),
                results=hits,
                usage=Usage.from_map(body["usage"]),
                timings=Timings.from_map(body["timings"]),
                truncated=_indexes(body["truncated"]),
            )


@dataclass(frozen=True, slots=True)
class MetricsReply:
    """Metrics as text, and their HTTP content type."""

    content_type: str
    text: str

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body."""
        return {"content_type": self.content_type, "text": self.text}

    @classmethod
    def from_map(cls, body: Mapping[str, Any]) -> "MetricsReply":
        """Read the reply to `metrics`."""
        with _reading("metrics"):
            return cls(_text(body["content_type"]), _text(body["text"]))


@dataclass(frozen=True, slots=True)
class StatusReply:
    """The daemon's configuration and state."""

    status: Mapping[str, Any]

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body."""
        return {"status": self.status}

    @classmethod
    def from_map(cls, body: Mapping[str, Any]) -> "StatusReply":
        """Read the reply to `status`."""
        with _reading("status"):
            return cls(dict(body["status"]))


def dtype_of(precision: Precision) -> np.dtype[Any]:
    """Return the dtype of vectors of `precision`: int8 for "binary", uint8 for "ubinary".

    Raises `BadRequest`, listing the valid precisions, for any other.
    """
    if precision not in PRECISIONS:
        raise BadRequest(f"precision must be {PRECISION_EXPECTED}, not {precision!r:.80}")
    return np.dtype(_DTYPES[precision]).newbyteorder("=")


def view_vectors(
    body: Mapping[str, Any], rows: int, precision: Precision = "float32"
) -> NDArray[Any]:
    """Return the vectors [rows, d] in the reply to an `embed` of `rows` texts.

    They are a read-only view of the reply's own bytes. Raises `ProtocolError` if dtype, shape and
    bytes do not agree with each other, with `rows` or with `precision`.
    """
    with _reading("embed"):
        table = body["vectors"]
        shape, data, dtype = tuple(map(_count, table["shape"])), table["data"], table["dtype"]
        expected = np.dtype(_DTYPES[precision])
        if dtype != expected.name:
            # An old daemon ignores `precision` as an unknown field and answers in float32.
            raise ProtocolError(f"embed: {dtype} vectors for precision {precision}")
        if len(shape) != 2 or shape[0] != rows:  # noqa: PLR2004 - [n, d]
            raise ProtocolError(f"embed: vectors of shape {shape} for {rows} texts")
        if len(data) != expected.itemsize * math.prod(shape):
            raise ProtocolError(f"embed: {len(data)} bytes for {dtype} vectors of shape {shape}")
        return np.frombuffer(data, expected).reshape(shape)


@contextmanager
def _reading(op: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{type(error).__name__}: {error}"
        raise ProtocolError(f"the reply to {op} cannot be read: {detail}") from error


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
