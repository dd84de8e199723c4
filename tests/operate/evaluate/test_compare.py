"""What counts as a difference, and what is noise."""

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from sidecar.operate.evaluate import compare
from sidecar.operate.evaluate.compare import difference
from sidecar.operate.evaluate.evaluation import Difference
from sidecar.operate.evaluate.metrics import Metric, Samples, spearman


@pytest.fixture
def draws() -> np.random.Generator:
    """Values that are the same in every run."""
    return np.random.default_rng(3)


def mean_of(values: Samples) -> Metric:
    return Metric("mean", lambda samples: float(samples.mean()), (values,))


def test_identical_runs_do_not_differ(draws: np.random.Generator) -> None:
    """The difference is nothing, and so is its interval."""
    values = draws.random(50)
    found = difference(mean_of(values), mean_of(values.copy()))
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "within noise"


@pytest.mark.parametrize(("shift", "verdict"), [(-0.1, "worse"), (0.1, "better")])
def test_a_clear_difference_is_told(draws: np.random.Generator, shift: float, verdict: str) -> None:
    """All queries move the same way, far less than they differ from each other."""
    values = draws.random(50)
    moved = values + shift + 0.01 * draws.standard_normal(50)
    found = difference(mean_of(values), mean_of(moved))
    assert found.value == pytest.approx(shift, abs=0.01)
    assert found.low < found.value < found.high
    assert found.verdict == verdict
    assert not found.within_noise


def test_what_goes_both_ways_is_noise(draws: np.random.Generator) -> None:
    """Queries move up and down by as much, whatever the mean happens to be."""
    values = draws.random(50)
    moved = values + np.tile([0.2, -0.19], 25)
    assert difference(mean_of(values), mean_of(moved)).verdict == "within noise"


def test_what_cancels_out_is_nothing() -> None:
    """In a fortieth of all draws the ups and the downs are as many: 0, and not 1e-17 beside it."""
    values = np.tile([0.2, 0.4, 0.6, 0.8], 10)
    moved = values.copy()
    moved[:5] += 0.2
    moved[5] -= 0.2
    found = difference(mean_of(values), mean_of(moved))
    assert found.low == 0
    assert found.within_noise


@pytest.mark.parametrize(("exact", "relative"), [(0.5, -0.2), (0.0, None)])
def test_a_difference_is_a_share_of_the_exact_figure(exact: float, relative: float | None) -> None:
    """Of nothing there is no share."""
    found = difference(mean_of(np.full(9, exact)), mean_of(np.full(9, exact - 0.1)))
    assert found.relative == pytest.approx(relative)


def test_the_same_data_give_the_same_interval(draws: np.random.Generator) -> None:
    """The draws are seeded."""
    a, b = mean_of(draws.random(20)), mean_of(draws.random(20))
    assert difference(a, b) == difference(a, b)


def test_correlations_are_drawn_in_pairs(
    draws: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that has lost the order is told from the one that has it."""
    monkeypatch.setattr(compare, "RESAMPLES", 100)  # a correlation takes a millisecond
    gold = np.arange(60.0)
    exact = Metric("Spearman", spearman, (gold, gold + draws.standard_normal(60)))
    own = Metric("Spearman", spearman, (gold, draws.standard_normal(60)))
    assert difference(exact, exact).verdict == "within noise"
    assert difference(exact, own).verdict == "worse"


def test_the_interval_holds_95_percent_of_the_draws(draws: np.random.Generator) -> None:
    """Against a bootstrap of its own, in numpy: of pairs, with the same queries for both."""
    exact, own = draws.random((2, 40))
    picks = draws.integers(0, 40, (20_000, 40))
    drawn = own[picks].mean(axis=1) - exact[picks].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = difference(mean_of(exact), mean_of(own))
    width = high - low
    assert found.value == pytest.approx(own.mean() - exact.mean())
    assert found.low == pytest.approx(low, abs=0.04 * width)
    assert found.high == pytest.approx(high, abs=0.04 * width)
    assert found.relative == pytest.approx((own.mean() - exact.mean()) / exact.mean())


def test_it_is_drawn_two_thousand_times() -> None:
    """Few draws would make the ends a matter of chance."""
    times: list[int] = []

    def counted(values: Samples) -> float:
        times.append(len(values))
        return float(values.mean())

    metric = Metric("mean", counted, (np.arange(5.0),))
    difference(metric, mean_of(np.arange(5.0)))
    assert 2_000 <= len(times) <= 2_010
    assert set(times) == {5}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.1, 0.1, "within noise"),
        (0.0, 0.1, "within noise"),
        (-0.1, 0.0, "within noise"),
        (0.01, 0.1, "better"),
        (-0.1, -0.01, "worse"),
    ],
)
def test_the_verdict_is_the_intervals(low: float, high: float, verdict: str) -> None:
    """Zero at its end is within it."""
    found = Difference(0.05, low, high, None)
    assert (found.verdict, found.within_noise) == (verdict, verdict == "within noise")
