"""The measures of closeness."""

import numpy as np

from sidecar.models.probes import PASSAGES_PER_QUERY, probe_inputs
from sidecar.models.rows import Row
from sidecar.models.verify import measure, rank_agreement


def rows_of(texts: object) -> list[Row]:
    return [
        Row(np.full(1, i), np.zeros(1, np.int64), truncated=False)
        for i, _ in enumerate(texts)  # type: ignore[arg-type, var-annotated]
    ]


def test_same_model_is_perfectly_close() -> None:
    """A model against itself: cosine 1."""
    forward = lambda row: np.array([row.ids[0] + 1.0, 2.0], np.float32)  # noqa: E731
    quality = measure("embed", rows_of, forward, forward)
    assert (quality.mean, quality.p1, quality.min) == (1, 1, 1)


def test_one_bad_vector_shows_in_the_minimum() -> None:
    """A single text whose vector turns round moves the minimum to -1."""
    exact = lambda row: np.array([1.0, 0.0], np.float32)  # noqa: E731
    wrong = lambda row: exact(row) * (-1 if row.ids[0] == 5 else 1)  # noqa: E731
    quality = measure("embed", rows_of, exact, wrong)
    assert quality.min == -1
    assert quality.mean > 0.9


def test_rank_agreement_counts_pairs() -> None:
    """One swapped neighbour among three documents is one pair of three."""
    exact = np.array([[3.0, 2.0, 1.0]], np.float32)
    swapped = np.array([[2.0, 3.0, 1.0]], np.float32)
    assert rank_agreement(exact, exact) == 1
    assert rank_agreement(exact, swapped) == 2 / 3


def test_reranker_probes_come_in_whole_queries() -> None:
    """Consecutive pairs share a query, as the measure reads them."""
    pairs = probe_inputs("rerank")
    assert len(pairs) % PASSAGES_PER_QUERY == 0
    for start in range(0, len(pairs), PASSAGES_PER_QUERY):
        assert len({pair[0] for pair in pairs[start : start + PASSAGES_PER_QUERY]}) == 1
