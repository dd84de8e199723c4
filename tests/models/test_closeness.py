"""The measures of closeness to FP32."""

import numpy as np
import pytest

from sidecar.models.closeness import closeness, cosines, rank_agreement, summary
from sidecar.models.probes import (
    PASSAGES_PER_QUERY,
    calibration_inputs,
    inputs_of,
    probe_inputs,
)


def test_cosine_of_the_same_vectors_is_one() -> None:
    """Vectors in the same direction have a cosine of 1, whatever their lengths."""
    vectors = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(cosines(vectors, 3 * vectors), 1, rtol=1e-6)


def test_one_bad_vector_shows_in_the_minimum() -> None:
    """A single text with a reversed vector lowers the minimum, but hardly the mean."""
    quality = summary(np.array([1.0] * 39 + [-1.0], np.float32))
    assert quality.min == -1
    assert quality.mean == 0.95
    assert quality.texts == 40


def test_rank_agreement_counts_pairs() -> None:
    """Swapping two neighbours among three documents changes one pair in three."""
    exact = np.array([[3.0, 2.0, 1.0]], np.float32)
    swapped = np.array([[2.0, 3.0, 1.0]], np.float32)
    assert rank_agreement(exact, exact) == 1
    assert rank_agreement(exact, swapped) == 2 / 3


@pytest.mark.parametrize("inputs", [probe_inputs, calibration_inputs])
def test_pairs_come_in_whole_queries(inputs) -> None:
    """Consecutive built-in pairs share a query, as the rank agreement assumes."""
    pairs = inputs("rerank")
    assert len(pairs) % PASSAGES_PER_QUERY == 0
    for start in range(0, len(pairs), PASSAGES_PER_QUERY):
        assert len({pair[0] for pair in pairs[start : start + PASSAGES_PER_QUERY]}) == 1


def test_nothing_is_verified_on_what_it_was_calibrated_on() -> None:
    """The built-in texts to verify on and those to calibrate on have nothing in common."""
    assert not set(probe_inputs("embed")) & set(calibration_inputs("embed"))


def test_two_zero_vectors_are_the_same() -> None:
    """Two zero vectors, which a static model gives for no tokens, have a cosine of 1."""
    vectors = np.array([[0, 0], [3, 4], [1, 0]], np.float32)
    others = np.array([[0, 0], [4, 3], [0, 2]], np.float32)
    np.testing.assert_allclose(cosines(vectors, others), [1, 24 / 25, 0], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("floor", [-1.0, 0.0, 0.99])
def test_a_zero_vector_is_not_close_to_another(floor: float) -> None:
    """A zero vector has no direction, so its cosine to another vector passes no floor."""
    zero, other = np.array([[0, 0]], np.float32), np.array([[0, 2]], np.float32)
    for pair in ((zero, other), (other, zero)):
        assert not cosines(*pair)[0] >= floor


def test_a_tie_is_an_order_of_its_own() -> None:
    """Documents tied on one side only count as ordered differently; tied on both, as the same."""
    exact = np.array([[1, 1, 2]], np.float32)
    assert rank_agreement(exact, exact) == 1
    assert rank_agreement(exact, np.array([[1, 0, 2]], np.float32)) == pytest.approx(2 / 3)
    assert rank_agreement(np.array([[1, 0, 2]], np.float32), exact) == pytest.approx(2 / 3)


def test_vectors_are_close_by_their_cosines() -> None:
    """The closeness of vectors is that of their cosines over all dimensions."""
    rng = np.random.default_rng(1)
    exact, other = rng.standard_normal((2, 60, 8)).astype(np.float32)
    expected = [x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(exact, other, strict=True)]
    quality = closeness("embed", exact, other)
    assert quality.mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert quality.min == pytest.approx(min(expected), abs=1e-6)
    assert quality.p1 == pytest.approx(np.percentile(expected, 1), abs=1e-6)
    assert quality.min < quality.p1 < quality.mean
    assert (quality.texts, quality.rank_agreement) == (60, None)


def test_scores_are_close_by_their_distance_and_their_order() -> None:
    """The closeness of scores is their distance in either direction, and their order per query."""
    rng = np.random.default_rng(2)
    exact, other = rng.random((2, 3 * PASSAGES_PER_QUERY, 1)).astype(np.float32)
    alike = total = 0
    for query in range(3):
        rows = range(query * PASSAGES_PER_QUERY, (query + 1) * PASSAGES_PER_QUERY)
        for first in rows:
            for second in rows:
                if first < second:
                    total += 1
                    alike += (exact[first] < exact[second]) == (other[first] < other[second])
    quality = closeness("rerank", exact, other)
    assert quality.mean == pytest.approx(1 - np.abs(exact - other).mean(), abs=1e-6)
    assert quality.min == pytest.approx(1 - np.abs(exact - other).max(), abs=1e-6)
    assert quality.rank_agreement == pytest.approx(float(alike[0]) / total, abs=1e-4)
    assert closeness("rerank", other, exact) == quality


def test_what_a_model_is_tried_on() -> None:
    """Embedders are tried on a text over the limit, and queries on their own answer first.

    Each query has the same number of passages, and the first passage follows the last one.
    """
    queries, passages = ["q0", "q1"], [f"p{number}" for number in range(PASSAGES_PER_QUERY + 1)]
    texts = inputs_of("embed", queries, passages)
    assert texts == [*queries, *passages, " ".join(passages)]
    assert inputs_of("rerank", queries, passages) == [
        *(("q0", f"p{number}") for number in range(PASSAGES_PER_QUERY)),
        *(("q1", f"p{number}") for number in range(1, PASSAGES_PER_QUERY + 1)),
    ]
    turned = inputs_of("rerank", [*"abc"], [str(number) for number in range(9)])
    assert [pair[1] for pair in turned if pair[0] == "c"] == [*"23456780"]
