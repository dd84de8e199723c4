"""The measures of closeness."""

import numpy as np
import pytest

from sidecar.models.closeness import cosines, rank_agreement, summary
from sidecar.models.probes import PASSAGES_PER_QUERY, calibration_inputs, probe_inputs


def test_cosine_of_the_same_vectors_is_one() -> None:
    """A model against itself: cosine 1, whatever the length."""
    vectors = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(cosines(vectors, 3 * vectors), 1, rtol=1e-6)


def test_one_bad_vector_shows_in_the_minimum() -> None:
    """A single text whose vector turned round moves the minimum, hardly the mean."""
    quality = summary(np.array([1.0] * 39 + [-1.0], np.float32))
    assert quality.min == -1
    assert quality.mean == 0.95
    assert quality.texts == 40


def test_rank_agreement_counts_pairs() -> None:
    """One swapped neighbour among three documents is one pair of three."""
    exact = np.array([[3.0, 2.0, 1.0]], np.float32)
    swapped = np.array([[2.0, 3.0, 1.0]], np.float32)
    assert rank_agreement(exact, exact) == 1
    assert rank_agreement(exact, swapped) == 2 / 3


@pytest.mark.parametrize("inputs", [probe_inputs, calibration_inputs])
def test_pairs_come_in_whole_queries(inputs) -> None:
    """Consecutive pairs share a query, as the measure reads them."""
    pairs = inputs("rerank")
    assert len(pairs) % PASSAGES_PER_QUERY == 0
    for start in range(0, len(pairs), PASSAGES_PER_QUERY):
        assert len({pair[0] for pair in pairs[start : start + PASSAGES_PER_QUERY]}) == 1


def test_nothing_is_verified_on_what_it_was_calibrated_on() -> None:
    """The two built-in sets share no text."""
    assert not set(probe_inputs("embed")) & set(calibration_inputs("embed"))
