"""How results travel: what is said under which name."""

import numpy as np
import pytest

from sidecar.serving.results import Answer, EmbedResult, RerankResult, Timings, milliseconds

TIMES = {
    "queue_ms": 1.5,
    "tokenize_ms": 2.5,
    "compute_ms": 3.5,
    "total_ms": 4.5,
    "batch_rows": 5,
    "batch_tokens": 6,
    "cached_rows": 7,
    "shared_rows": 8,
}
ANSWER = Answer("tiny", rows=9, tokens=10, truncated=(1, 3), timings=Timings(**TIMES))
COMMON = {
    "model": "tiny",
    "usage": {"prompt_tokens": 10, "total_tokens": 10},
    "truncated": (1, 3),
    "timings": TIMES,
}


def test_seconds_are_told_in_milliseconds():
    """To the microsecond."""
    assert [milliseconds(each) for each in (1.5, 0.000_001_4, 0.012_345_6)] == [1500, 0.001, 12.346]


def test_vectors_travel_with_their_shape_and_type():
    """And with what every answer has, each number under its own name."""
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = EmbedResult(ANSWER, vectors)
    body = result.to_map()
    assert {**body, "vectors": None} == {**COMMON, "vectors": None}
    table = body["vectors"]
    assert (table["dtype"], table["shape"]) == ("float32", (2, 3))
    assert bytes(table["data"]) == vectors.tobytes()
    assert result.payload_bytes == 24


@pytest.mark.parametrize(("top_n", "indexes"), [(None, [2, 0, 1]), (2, [2, 0]), (5, [2, 0, 1])])
def test_documents_travel_by_relevance(top_n, indexes):
    """The best first, each with its own score, and no more than were asked for."""
    scores = np.array([0.5, -1.0, 0.75], np.float32)
    result = RerankResult.by_score(ANSWER, "embedding", scores, top_n)
    expected = [{"index": i, "relevance_score": float(scores[i])} for i in indexes]
    assert result.to_map() == {**COMMON, "method": "embedding", "results": expected}
    assert len(indexes) * 20 <= result.payload_bytes <= len(indexes) * 60
