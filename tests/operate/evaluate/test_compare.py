"""What counts as a difference, and what as noise."""

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from sidecar.operate.evaluate import compare
from sidecar.operate.evaluate.compare import difference
from sidecar.operate.evaluate.evaluation import Difference
from sidecar.operate.evaluate.metrics import Metric, Samples, spearman


@pytest.fixture
def draws() -> np.random.Generator:
    """Return a generator that draws the same values in every run."""
    return np.random.default_rng(3)


def mean_of(values: Samples) -> Metric:
    return Metric("mean", lambda samples: float(samples.mean()), (values,))


def test_identical_runs_do_not_differ(draws: np.random.Generator) -> None:
    """Identical values have a difference of 0, with an interval of 0 to 0."""
    values = draws.random(50)
    found = difference(mean_of(values), mean_of(values.copy()))
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "within noise"


@pytest.mark.parametrize(("shift", "verdict"), [(-0.1, "worse"), (0.1, "better")])
def test_a_clear_difference_is_told(draws: np.random.Generator, shift: float, verdict: str) -> None:
    """A small but consistent shift of all queries is a difference."""
    values = draws.random(50)
    moved = values + shift + 0.01 * draws.standard_normal(50)
    found = difference(mean_of(values), mean_of(moved))
    assert found.value == pytest.approx(shift, abs=0.01)
    assert found.low < found.value < found.high
    assert found.verdict == verdict
    assert not found.within_noise


def test_what_goes_both_ways_is_noise(draws: np.random.Generator) -> None:
    """Queries that move up and down by the same amount are within noise."""
    values = draws.random(50)
    moved = values + np.tile([0.2, -0.19], 25)
    assert difference(mean_of(values), mean_of(moved)).verdict == "within noise"


def test_what_cancels_out_is_nothing() -> None:
    """Changes that cancel out in a draw are exactly 0, without a rounding error."""
    values = np.tile([0.2, 0.4, 0.6, 0.8], 10)
    moved = values.copy()
    moved[:5] += 0.2
    moved[5] -= 0.2
    found = difference(mean_of(values), mean_of(moved))
    assert found.low == 0
    assert found.within_noise


@pytest.mark.parametrize(("exact", "relative"), [(0.5, -0.2), (0.0, None)])
def test_a_difference_is_a_share_of_the_exact_figure(exact: float, relative: float | None) -> None:
    """The relative difference is a share of FP32's figure, and undefined if that is 0."""
    found = difference(mean_of(np.full(9, exact)), mean_of(np.full(9, exact - 0.1)))
    assert found.relative == pytest.approx(relative)


def test_the_same_data_give_the_same_interval(draws: np.random.Generator) -> None:
    """The draws are seeded, so equal data give equal intervals."""
    a, b = mean_of(draws.random(20)), mean_of(draws.random(20))
    assert difference(a, b) == difference(a, b)


def test_correlations_are_drawn_in_pairs(
    draws: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A correlation is resampled in pairs, and one that is lost is a difference."""
    monkeypatch.setattr(compare, "RESAMPLES", 100)  # a correlation takes a millisecond
    gold = np.arange(60.0)
    exact = Metric("Spearman", spearman, (gold, gold + draws.standard_normal(60)))
    own = Metric("Spearman", spearman, (gold, draws.standard_normal(60)))
    assert difference(exact, exact).verdict == "within noise"
    assert difference(exact, own).verdict == "worse"


def test_the_interval_holds_95_percent_of_the_draws(draws: np.random.Generator) -> None:
    """The interval agrees with a paired bootstrap written in numpy."""
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
    """The interval is computed from 2,000 draws, enough for stable ends."""
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
    """The verdict depends on the interval only; a 0 at its end is within noise."""
    found = Difference(0.05, low, high, None)
    assert (found.verdict, found.within_noise) == (verdict, verdict == "within noise")
