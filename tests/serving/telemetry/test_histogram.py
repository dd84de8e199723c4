"""Histograms: quantiles are close to the truth, and memory is constant."""

import statistics as exact

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.telemetry.histogram import Histogram

from ...sizes import reachable

VALUES = st.lists(st.floats(0.001, 2e6), min_size=1, max_size=200)
ERROR = 2 ** (1 / 16)


def histogram_of(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_at_most_4_4_percent_above_the_truth(values, share):
    """A quantile is never below the exact one, and at most 4.4 % above it."""
    ordered = sorted(values)
    rank = next(r for r in range(1, len(ordered) + 1) if r >= share * len(ordered))
    truth = ordered[rank - 1]
    assert truth * (1 - 1e-9) <= histogram_of(values).quantile(share) <= truth * ERROR * (1 + 1e-9)


@given(VALUES, VALUES)
def test_adding_is_as_if_one_had_counted_all(one, other):
    """Adding two histograms equals recording all their values in one."""
    added = histogram_of(one)
    added.add(histogram_of(other))
    whole = histogram_of(one + other)
    assert added.octaves() == whole.octaves()
    assert all(added.quantile(q / 20) == whole.quantile(q / 20) for q in range(21))
    assert added.to_map()["max"] == whole.to_map()["max"] == max(one + other)
    assert added.sum == pytest.approx(whole.sum)


@given(st.lists(st.integers(1, 2**20), min_size=1, max_size=200))
def test_octaves_count_exactly(values):
    """Octaves count integers exactly; a power of two belongs to the bucket that it bounds."""
    counts = dict(histogram_of(values).octaves())
    assert sum(counts.values()) == len(values)
    for bound, count in counts.items():
        assert count == sum(bound / 2 < value <= bound for value in values)


def test_small_whole_numbers_are_read_off_as_they_are():
    """Quantiles of integers up to 16, the largest batch, round to the exact number."""
    for rows in range(1, 17):
        histogram = histogram_of([rows, 16])
        assert round(histogram.quantile(0.5)) == rows


def test_a_status_says_what_numpy_says():
    """Count, sum, mean and maximum agree with numpy, and percentiles within 4.4 %."""
    values = np.random.default_rng(3).lognormal(2, 2, 5_000)
    status = histogram_of(values).to_map()
    assert status["count"] == 5_000
    assert status["sum"] == pytest.approx(values.sum(), abs=0.001)
    assert status["mean"] == pytest.approx(values.mean(), abs=0.001)
    assert status["max"] == values.max()
    for name, percentile in (("p50", 50), ("p95", 95), ("p99", 99)):
        truth = np.percentile(values, percentile, method="inverted_cdf")
        assert truth - 0.001 <= status[name] <= truth * ERROR + 0.001, name
    assert sum(count for _, count in status["buckets"]) == 5_000


def test_nothing_yet_is_zero():
    """An empty histogram reports zeros."""
    assert Histogram().to_map() == {
        "count": 0, "sum": 0, "mean": 0, "p50": 0, "p95": 0, "p99": 0, "max": 0, "buckets": [],
    }  # fmt: skip


def test_zero_is_a_value():
    """Zero is counted like any other value."""
    histogram = histogram_of([0.0, 0.0, 8.0])
    assert (histogram.count, histogram.quantile(0.5), histogram.quantile(1)) == (3, 2**-10, 8)


def test_what_is_beyond_the_buckets_keeps_its_size():
    """Values beyond the buckets are counted, and the maximum stays exact."""
    histogram = histogram_of([1e-6, 1e9])
    assert histogram.quantile(1) == 1e9
    assert histogram.quantile(0.5) <= 2**-10
    assert (histogram.count, histogram.sum) == (2, pytest.approx(1e9))


def test_many_values_take_no_more_memory_than_one():
    """A histogram of many values takes no more memory than an empty one."""
    spread = [0.1 * 1.0001**i for i in range(100_000)]
    histogram = histogram_of(spread)
    assert reachable(histogram) <= reachable(Histogram()) + 100
    assert exact.median(spread) == pytest.approx(histogram.quantile(0.5), rel=0.05)
