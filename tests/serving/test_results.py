"""The engine's results, converted to replies."""

import numpy as np

from client_lib.wire.replies import Timings
from sidecar.serving.results import Answer, Embeddings, Ranking, milliseconds

TIMINGS = {
    "queue_ms": 1.5, "tokenize_ms": 2.5, "compute_ms": 3.5, "total_ms": 8.5, "batch_rows": 5,
    "batch_tokens": 60, "cached_rows": 7, "shared_rows": 8,
}  # fmt: skip
ANSWER = Answer("m", rows=9, tokens=70, truncated=(1, 3), timings=Timings(**TIMINGS))
COMMON = {
    "model": "m",
    "usage": {"prompt_tokens": 70, "total_tokens": 70},
    "truncated": (1, 3),
    "timings": TIMINGS,
}


def test_times_are_told_in_milliseconds_to_the_microsecond():
    """Seconds are converted to milliseconds, rounded to the microsecond."""
    assert milliseconds(1.234_567_8) == 1234.568


def test_vectors_travel_as_one_table():
    """Vectors are sent as one table: dtype, shape and bytes, in the requested precision."""
    vectors = np.array([[0.6, -0.8, 0.0], [0.0, 0.0, 1.0]], np.float32)
    result = Embeddings(ANSWER, vectors)
    reply = dict(result.to_map())
    table = reply.pop("vectors")
    assert reply == COMMON
    assert (table["dtype"], tuple(table["shape"])) == ("float32", (2, 3))
    assert bytes(table["data"]) == vectors.astype("<f4").tobytes()
    assert result.payload_bytes == 24
    half = Embeddings(ANSWER, vectors, "float16").to_map()["vectors"]
    assert (half["dtype"], bytes(half["data"])) == ("float16", vectors.astype("<f2").tobytes())


def test_a_ranking_has_the_best_first():
    """A ranking has the `top_n` best documents, or all, best first and ties by index."""
    scores = np.array([0.25, 2.0, -1.0, 2.0, 0.5], np.float32)
    order = [1, 3, 4, 0, 2]
    for top_n in (None, 1, 3, 5, 9):
        result = Ranking.by_score(ANSWER, "cross_encoder", scores, top_n)
        expected = [{"index": i, "relevance_score": float(scores[i])} for i in order[:top_n]]
        reply = {**COMMON, "method": "cross_encoder", "results": expected}
        assert result.to_map() == reply
        assert result.payload_bytes == 40 * len(expected)
