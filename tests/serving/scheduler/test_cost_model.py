import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.process.loader import calibrate_cost
from sidecar.serving.scheduler.cost_model import CostModel

LINE = [(tokens, 0.001 + 0.0001 * tokens) for tokens in (4, 16, 64, 256)]
lengths, times = st.integers(1, 8192), st.floats(1e-6, 100)


def microseconds(tokens):
    return round(1e6 * (0.001 + 0.0001 * tokens))


@pytest.mark.parametrize("tokens", [1, 30, 512])
def test_rows_on_a_line_are_predicted_exactly(tokens):
    """Rows on a line are predicted exactly, between the measured lengths and beyond them."""
    assert CostModel(LINE).microseconds(tokens) == microseconds(tokens)


def test_the_line_is_that_of_least_squares():
    """The line is a least-squares fit with weights 1 / tokens that decay by 1/256 per later row."""
    rng = np.random.default_rng(7)
    first = [(4, 0.002), (64, 0.009), (300, 0.04)]
    rows = [(int(t), 0.001 + 0.0001 * t * rng.uniform(0.5, 2)) for t in rng.integers(1, 400, 300)]
    cost = CostModel(first)
    for row in rows:
        cost.record(*row)
    tokens, seconds = np.array([*first, *rows]).T
    ages = np.r_[np.zeros(len(first)), np.arange(len(rows))[::-1]]
    weights = (255 / 256) ** ages / tokens
    slope, intercept = np.polyfit(tokens, seconds, 1, w=np.sqrt(weights))
    assert (cost.per_token, cost.fixed) == pytest.approx((slope, intercept))
    assert cost.microseconds(100) == round(1e6 * (intercept + 100 * slope))
    assert cost.to_map() == pytest.approx(
        {"fixed_ms": 1e3 * intercept, "per_token_ms": 1e3 * slope}, abs=1e-4
    )


def test_a_row_of_no_tokens_counts_as_one_of_one():
    """A row without tokens counts as one of a single token, so nothing is divided by zero."""
    none, one = CostModel(), CostModel()
    none.record(0, 0.005)
    one.record(1, 0.005)
    assert none.to_map() == one.to_map()


def test_a_line_that_predicts_time_out_of_nothing_is_turned():
    """A falling line is replaced by its mean, and a negative intercept by a line through zero."""
    falling, steep = CostModel([(1, 1.0), (100, 0.5)]), CostModel([(10, 0.01), (100, 1.0)])
    mean = np.average([1.0, 0.5], weights=[1, 1 / 100])
    assert (falling.per_token, falling.fixed) == (0.0, pytest.approx(mean))
    assert (steep.per_token, steep.fixed) == (pytest.approx(1.01 / 110), 0.0)
    assert CostModel([(1, 0.0), (9, 0.0)]).microseconds(5) == 1


def test_a_host_that_slows_down_is_followed():
    """After a thousand rows at half the speed, the predicted cost has doubled."""
    cost = CostModel(LINE)
    for _ in range(1000):
        cost.record(64, 2 * 0.0074)
    assert cost.microseconds(64) == pytest.approx(2 * 7400, rel=0.02)


def test_rows_of_one_length_do_not_undo_what_is_known_of_others():
    """The slope is kept however long only rows of one length are recorded."""
    cost = CostModel(LINE)
    for _ in range(10_000):
        cost.record(4, 0.0014)
    assert cost.microseconds(256) == pytest.approx(microseconds(256), rel=0.01)


@given(st.lists(st.tuples(lengths, times)), lengths)
def test_no_measurement_makes_time_negative(rows, tokens):
    """Whatever was measured, a longer row never costs less, and no row is free."""
    cost = CostModel()
    for row in rows:
        cost.record(*row)
    assert 1 <= cost.microseconds(tokens) <= cost.microseconds(tokens + 1)


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_a_model_is_learned_from_its_own_first_rows(tiny, task):
    """Calibration times eight of a model's rows with the given clock."""
    now = iter(range(100))
    model = tiny(task=task, max_tokens=10_000)
    cost = calibrate_cost(model, lambda: float(next(now)))
    assert cost.microseconds(500) == pytest.approx(1_000_000, rel=0.01)
    assert len(model.order) == 8


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_the_first_row_of_a_length_is_not_timed(tiny, task):
    """Calibration ignores the first row of each length, which is slow."""
    now, model, lengths = [0.0], tiny(task=task, max_tokens=10_000), []
    forward = model.forward

    def slow(row):
        now[0] += 10.0 if row.tokens not in lengths else 0.1 * row.tokens
        lengths.append(row.tokens)
        return forward(row)

    model.forward = slow
    cost = calibrate_cost(model, lambda: now[0])
    assert (cost.per_token, cost.fixed) == (pytest.approx(0.1), pytest.approx(0.0, abs=1e-9))
    assert min(lengths) < 25
    assert max(lengths) > 900


def test_rows_of_one_length_tell_what_a_row_costs() -> None:
    """Rows of a single length yield a fixed cost without a slope or a division by zero."""
    cost = CostModel([(3, 0.002)] * 4)
    assert (cost.per_token, cost.fixed) == (0.0, pytest.approx(0.002))
    cost.record(3, 0.002)
    assert cost.microseconds(3) == 2_000
