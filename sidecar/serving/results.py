"""The engine's results, and the replies made from them. Times are in milliseconds."""

from dataclasses import dataclass
from typing import Any

from client_lib.wire.messages import Precision
from client_lib.wire.replies import EmbedReply, RerankReply, RerankResult, Timings, Usage
from sidecar.serving.postprocess import best_first, quantize
from sidecar.serving.registry import Float32


def milliseconds(seconds: float) -> float:
    """Convert `seconds` to milliseconds, rounded to the microsecond, for replies and events."""
    return round(1000 * seconds, 3)


@dataclass(frozen=True, slots=True)
class Answer:
    """The part that all results share; `rows` and `tokens` are the totals of the request."""

    model: str
    rows: int
    tokens: int
    truncated: tuple[int, ...]
    timings: Timings

    @property
    def usage(self) -> Usage:
        """The token counts of the request."""
        return Usage(self.tokens, self.tokens)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors, float32 [n, d], row i for text i, and the precision to send them in."""

    answer: Answer
    vectors: Float32
    precision: Precision = "float32"

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body; float32 vectors are not copied."""
        answer, vectors = self.answer, quantize(self.vectors, self.precision)
        reply = EmbedReply(answer.model, vectors, answer.usage, answer.timings, answer.truncated)
        return reply.to_map()

    @property
    def payload_bytes(self) -> int:
        """The size of the vectors in float32, an upper bound for the work of packing them."""
        return self.vectors.nbytes


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents by relevance, best first; `method` names what scored them."""

    answer: Answer
    method: str
    results: tuple[RerankResult, ...]

    @classmethod
    def by_score(cls, answer: Answer, method: str, scores: Float32, top_n: int | None) -> "Ranking":
        """Rank by `scores`, float32 [n]; keep the `top_n` best, or all."""
        best = best_first(scores)[:top_n]
        results = map(RerankResult, best, scores[best].tolist())
        return cls(answer, method, tuple(results))

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body."""
        answer = self.answer
        reply = RerankReply(
            answer.model, self.method, self.results, answer.usage, answer.timings, answer.truncated
        )
        return reply.to_map()

    @property
    def payload_bytes(self) -> int:
        """The approximate size of the reply."""
        return 40 * len(self.results)
