"""Counts, sums and percentiles by group."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.operate.aggregate import Aggregation, Group
from sidecar.operate.distribution import Distribution
from sidecar.operate.records import Record

from .world import records

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
SHARES = (0.0, 0.5, 0.95, 0.99, 1.0)


def groups(*by: str, stats: tuple[str, ...] = (), **fields: list) -> list[Group]:
    aggregation = Aggregation(by, stats)
    for record in records(**fields):
        aggregation.add(record)
    return aggregation.groups()


def distribution(values: np.ndarray, weight: float = 1.0) -> Distribution:
    made = Distribution()
    for value in values:
        made.add(float(value), weight)
    return made


@given(st.lists(NUMBERS, min_size=1, max_size=200))
def test_percentiles_of_few_numbers_are_numpys(values: list[float]) -> None:
    """Percentiles of few numbers equal numpy's, and the mean and maximum are right."""
    summary = distribution(np.array(values)).summary()
    expected = np.percentile(values, [50, 95, 99])
    assert [summary.p50, summary.p95, summary.p99] == pytest.approx(list(expected))
    assert summary.max == max(values)
    assert summary.mean == pytest.approx(np.mean(values), rel=1e-6, abs=1e-6)
    assert not summary.estimated


@pytest.mark.parametrize("sign", [1, -1])
def test_percentiles_of_many_numbers_are_within_one_percent(sign: int) -> None:
    """Many numbers are kept in bounded bins, with percentiles within 1 % and an exact sum."""
    values = sign * np.random.default_rng(3).lognormal(2, 2, size=50_000)
    many = distribution(values)
    summary = many.summary()
    assert summary.estimated
    assert len(many.values) <= 10_000
    assert len(many.bins) < 1_500
    expected = np.quantile(values, SHARES)
    assert many.quantiles(SHARES) == pytest.approx(list(expected), rel=0.011)
    assert (summary.max, summary.count) == (values.max(), 50_000)
    assert summary.sum == pytest.approx(values.sum())


def test_zero_and_the_extremes_have_a_bin() -> None:
    """Zero and the extremes of floats can be estimated."""
    values = np.tile([0.0, 5e-324, 1.7e308, -1.7e308], 5_000)
    estimated = distribution(values).quantiles((0.0, 0.5, 1.0))
    assert (estimated[0], estimated[2]) == pytest.approx((-1.7e308, 1.7e308), rel=0.01)
    assert abs(estimated[1]) < 1e-300


@pytest.mark.parametrize("size", [100, 9_000])
def test_merged_distributions_are_one(size: int) -> None:
    """Merged distributions equal one that took all numbers, exact or estimated."""
    values = np.random.default_rng(4).gamma(2, 9, size=3 * size)
    merged = Distribution()
    for part in np.split(values, 3):
        merged.merge(distribution(part))
    assert merged.quantiles(SHARES) == pytest.approx(list(np.quantile(values, SHARES)), rel=0.011)
    assert merged.summary().mean == pytest.approx(values.mean())


def test_a_weighted_number_counts_as_often() -> None:
    """A record with `sample` counts 1 / sample times."""
    found = groups(stats=("total_ms",), total_ms=[1.0, 9.0], sample=[0.01, 1])
    assert found[0].count == 101
    summary = found[0].summaries["total_ms"]
    assert (summary.count, summary.sum, summary.p50, summary.max) == (101, 109, 1, 9)
    assert summary.p99 == 1


@pytest.mark.parametrize("sample", [0, -1, 2, 1e-300, "x", None, True])
def test_an_impossible_sample_is_none(sample: object) -> None:
    """A record with an impossible `sample` counts once."""
    assert groups(sample=[sample])[0].count == 1


def test_groups_come_the_largest_first() -> None:
    """Groups are sorted by size; a missing field forms its own, and a list is shown as text."""
    found = groups("code", "models", code=["a", "b", "b", None], models=["x", ["y"], ["y"], "x"])
    assert [(group.key, group.count) for group in found] == [
        (("b", '["y"]'), 2), (("a", "x"), 1), ((None, "x"), 1),
    ]  # fmt: skip


def test_groups_by_time() -> None:
    """Records can be grouped by the minute."""
    found = groups("minute", rows=list(range(90)))
    assert [(group.key[0], group.count) for group in found] == [
        ("1970-01-01T00:00", 60), ("1970-01-01T00:01", 30),
    ]  # fmt: skip


def test_reasons_that_differ_in_a_number_are_one() -> None:
    """Reasons that differ only in a number are one group; digits in names are kept."""
    reasons = ["it would take 0.26 s on L6-v2", "it would take 12 s on L6-v2"]
    assert [group.key for group in groups("reason", reason=reasons)] == [
        ("it would take # s on L6-v2",)
    ]


def test_what_is_no_number_has_no_part_in_sums() -> None:
    """Values that are not numbers are counted but not summed."""
    (group,) = groups(stats=("rows",), rows=[1, "x", None, float("nan"), True, "3"])
    assert group.count == 6
    assert (group.summaries["rows"].count, group.summaries["rows"].sum) == (2, 4)


def test_groups_are_bounded() -> None:
    """Beyond 10,000 groups, new ones are counted together."""
    found = groups("peer_pid", peer_pid=list(range(10_005)))
    assert (found[0].key, found[0].count) == (("(others)",), 5)
    assert len(found) == 10_001


def test_groups_by_hour_and_day() -> None:
    """Hours and days are in UTC, whatever the reader's zone."""
    aggregations = {by: Aggregation((by,)) for by in ("hour", "day")}
    for at in (0, 3_599, 3_600, 86_400):
        for aggregation in aggregations.values():
            aggregation.add(Record(float(at), {"event": "x"}))
    found = {
        by: {group.key[0]: group.count for group in aggregation.groups()}
        for by, aggregation in aggregations.items()
    }
    assert found["hour"] == {"1970-01-01T00": 2, "1970-01-01T01": 1, "1970-01-02T00": 1}
    assert found["day"] == {"1970-01-01": 3, "1970-01-02": 1}


def test_each_field_has_numbers_of_its_own() -> None:
    """Each group summarises each field separately."""
    slow, fast = groups(
        "lane",
        stats=("queue_ms", "total_ms"),
        lane=["bulk", "bulk", "interactive"],
        queue_ms=[1.0, 3.0, 5.0],
        total_ms=[10.0, 30.0, 50.0],
    )
    assert (slow.key, fast.key) == (("bulk",), ("interactive",))
    assert slow.summaries["queue_ms"].sum == 4
    assert slow.summaries["total_ms"].mean == 20
    assert fast.summaries["total_ms"].max == 50
    assert groups(stats=("queue_ms",), total_ms=[1.0])[0].summaries == {}


def test_messages_that_differ_in_a_number_are_one_too() -> None:
    """Numbers, also decimals, are masked in messages but not in other fields."""
    found = groups("message", "code", message=["took 1.5 s", "took 12 s"], code=["a1", "a2"])
    assert {group.key for group in found} == {("took # s", "a1"), ("took # s", "a2")}
    assert groups("reason", reason=[5])[0].key == ("#",)


def test_what_is_beyond_the_bound_has_a_place_in_every_column() -> None:
    """Beyond the bound, new keys become `(others)` in every column, and known groups still grow."""
    aggregation = Aggregation(("peer_uid", "peer_pid"))
    for pid in [*range(10_000), 5, 10_000, 5]:
        aggregation.add(Record(0.0, {"event": "x", "peer_uid": 1, "peer_pid": pid}))
    found = {group.key: group.count for group in aggregation.groups()}
    assert len(found) == 10_001
    assert found[1, 5] == 3
    assert found["(others)", "(others)"] == 1


def test_the_percentiles_have_their_own_places() -> None:
    """Each percentile is its own quantile, also of weighted numbers."""
    summary = distribution(np.arange(1.0, 102.0)).summary()
    assert (summary.p50, summary.p95, summary.p99) == pytest.approx((51, 96, 100))
    assert (summary.mean, summary.max, summary.count) == (51, 101, 101)
    weighted = Distribution()
    for value, weight in ((1.0, 2.0), (3.0, 7.0), (2.0, 1.0)):
        weighted.add(value, weight)
    assert weighted.quantiles((0.0, 0.19, 0.25, 0.31, 1.0)) == [1, 1, 2, 3, 3]
    summary = weighted.summary()
    assert (summary.count, summary.sum, summary.mean) == (10, 25, 2.5)
    assert not summary.estimated


def test_estimates_know_what_each_number_stands_for() -> None:
    """Weights survive the change to estimates, and merging."""
    made = Distribution()
    for _ in range(10_000):
        made.add(1.0)
    assert not made.summary().estimated
    made.add(100.0, 30_000.0)
    assert made.summary().estimated
    other = distribution(np.full(10_001, 100.0))
    for both in (made, other):
        both.merge(distribution(np.array([5.0]), 2.0))
    made.merge(other)
    assert made.count == 10_000 + 30_000 + 10_001 + 4
    assert made.quantiles((0.19, 0.21, 0.5)) == pytest.approx([1, 100, 100], rel=0.011)
    assert (made.least, made.greatest) == (1, 100)
    assert made.sum == pytest.approx(10_000 + 4_000_100 + 20)


def test_merging_takes_the_extremes_of_both() -> None:
    """A merged distribution has the extremes of both, whichever holds them."""
    for first, second in (([1.0, 9.0], [4.0]), ([4.0], [1.0, 9.0])):
        merged = distribution(np.array(first))
        merged.merge(distribution(np.array(second)))
        assert (merged.least, merged.greatest, merged.count, merged.sum) == (1, 9, 3, 14)


def test_estimates_stay_between_the_extremes() -> None:
    """Estimates are clipped to the extremes, so equal numbers have exact percentiles."""
    for value in (7.3, -7.3):
        same = distribution(np.full(10_001, value))
        assert same.summary().estimated
        assert same.quantiles((0.0, 0.5, 1.0)) == [value] * 3
