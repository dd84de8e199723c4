"""What the engine returns, and how each travels. Times in milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client_lib.wire.messages import Precision
from sidecar.serving.postprocess import best_first, quantize
from sidecar.serving.registry import Float32


def milliseconds(seconds: float) -> float:
    """Return `seconds` as they are told: in ms, to the microsecond."""
    return round(1000 * seconds, 3)


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went.

    `queue_ms` ends when its first row starts; `compute_ms` lasts from there to the end of its
    last row; the batch is the largest that one of its rows was in. `cached_rows` were not
    computed at all, `shared_rows` for an equal row.
    """

    queue_ms: float
    tokenize_ms: float
    compute_ms: float
    total_ms: float
    batch_rows: int
    batch_tokens: int
    cached_rows: int
    shared_rows: int

    def to_map(self) -> dict[str, Any]:
        """Return the `timings` of a reply."""
        return {
            "queue_ms": self.queue_ms,
            "tokenize_ms": self.tokenize_ms,
            "compute_ms": self.compute_ms,
            "total_ms": self.total_ms,
            "batch_rows": self.batch_rows,
            "batch_tokens": self.batch_tokens,
            "cached_rows": self.cached_rows,
            "shared_rows": self.shared_rows,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What every computed request has: `rows` and `tokens` count what was computed for it."""

    model: str
    rows: int
    tokens: int
    truncated: tuple[int, ...]
    timings: Timings

    def common(self) -> dict[str, Any]:
        """Return the fields that the replies share."""
        return {
            "model": self.model,
            "usage": {"prompt_tokens": self.tokens, "total_tokens": self.tokens},
            "truncated": self.truncated,
            "timings": self.timings.to_map(),
        }


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Vectors, float32 [n, d], row i for text i, and the precision that they travel in."""

    answer: Answer
    vectors: Float32
    precision: Precision = "float32"

    def to_map(self) -> Mapping[str, Any]:
        """Return the reply's body; the bytes of float32 are not copied."""
        vectors = quantize(self.vectors, self.precision)
        table = {"dtype": vectors.dtype.name, "shape": vectors.shape, "data": vectors.data}
        return {**self.answer.common(), "vectors": table}

    @property
    def payload_bytes(self) -> int:
        """How much there is to pack: about as much as the reply is long, in float32."""
        return self.vectors.nbytes


@dataclass(frozen=True, slots=True)
class RerankResult:
    """Documents by index and score, the best first; `method` says what scored them."""

    answer: Answer
    method: str
    ranking: tuple[tuple[int, float], ...]

    @classmethod
    def by_score(
        cls, answer: Answer, method: str, scores: Float32, top_n: int | None
    ) -> "RerankResult":
        """Return the `top_n` best, or all, by their `scores`, float32 [n]."""
        ranking = tuple((index, float(scores[index])) for index in best_first(scores)[:top_n])
        return cls(answer, method, ranking)

    def to_map(self) -> Mapping[str, Any]:
        """Return the reply's body."""
        results = [{"index": i, "relevance_score": score} for i, score in self.ranking]
        return {**self.answer.common(), "method": self.method, "results": results}

    @property
    def payload_bytes(self) -> int:
        """How long the reply is, nearly."""
        return 40 * len(self.ranking)
