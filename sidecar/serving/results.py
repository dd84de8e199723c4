"""What the engine returns, and the replies that it becomes. Times are in milliseconds."""

from dataclasses import dataclass
from typing import Any

from client_lib.wire.messages import Precision
from client_lib.wire.replies import EmbedReply, RerankReply, RerankResult, Timings, Usage
from sidecar.serving.postprocess import best_first, quantize
from sidecar.serving.registry import Float32


def milliseconds(seconds: float) -> float:
    """Return `seconds` as replies and events state times: in ms, to the microsecond."""
    return round(1000 * seconds, 3)


@dataclass(frozen=True, slots=True)
class Answer:
    """What every computed request has: `rows` and `tokens` count what was computed for it."""

    model: str
    rows: int
    tokens: int
    truncated: tuple[int, ...]
    timings: Timings

    @property
    def usage(self) -> Usage:
        """The tokens of the request."""
        return Usage(self.tokens, self.tokens)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors, float32 [n, d], row i for text i, and the precision that they travel in."""

    answer: Answer
    vectors: Float32
    precision: Precision = "float32"

    def to_map(self) -> dict[str, Any]:
        """Return the reply's body; vectors in float32 are not copied."""
        answer, vectors = self.answer, quantize(self.vectors, self.precision)
        reply = EmbedReply(answer.model, vectors, answer.usage, answer.timings, answer.truncated)
        return reply.to_map()

    @property
    def payload_bytes(self) -> int:
        """The size of the vectors in float32, which bounds the work of packing them."""
        return self.vectors.nbytes


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents by relevance, the best first; `method` says what scored them."""

    answer: Answer
    method: str
    results: tuple[RerankResult, ...]

    @classmethod
    def by_score(cls, answer: Answer, method: str, scores: Float32, top_n: int | None) -> "Ranking":
        """Return the `top_n` best, or all, by their `scores`, float32 [n]."""
        best = best_first(scores)[:top_n]
        return cls(answer, method, tuple(RerankResult(i, float(scores[i])) for i in best))

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
