import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.serving.cost import Cost
from sidecar.serving.warm_up import learn

LINE = [(tokens, 0.001 + 0.0001 * tokens) for tokens in (4, 16, 64, 256)]
lengths, times = st.integers(1, 8192), st.floats(1e-6, 100)


def microseconds(tokens):
    return round(1e6 * (0.001 + 0.0001 * tokens))


@pytest.mark.parametrize("tokens", [1, 30, 512])
def test_rows_on_a_line_are_predicted_exactly(tokens):
    """Between the lengths that were measured, and beyond them."""
    assert Cost(LINE).microseconds(tokens) == microseconds(tokens)


def test_a_host_that_slows_down_is_followed():
    """A thousand rows of one length at half the speed, and rows of that length cost twice."""
    cost = Cost(LINE)
    for _ in range(1000):
        cost.record(64, 2 * 0.0074)
    assert cost.microseconds(64) == pytest.approx(2 * 7400, rel=0.02)


def test_rows_of_one_length_do_not_undo_what_is_known_of_others():
    """The slope stays, however long only short rows come."""
    cost = Cost(LINE)
    for _ in range(100_000):
        cost.record(4, 0.0014)
    assert cost.microseconds(256) == pytest.approx(microseconds(256), rel=0.01)


@given(st.lists(st.tuples(lengths, times)), lengths)
def test_no_measurement_makes_time_negative(rows, tokens):
    """Whatever was measured, a longer row costs no less, and no row nothing."""
    cost = Cost()
    for row in rows:
        cost.record(*row)
    assert 1 <= cost.microseconds(tokens) <= cost.microseconds(tokens + 1)


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_a_model_is_learned_from_its_own_first_rows(tiny, task):
    """By the given clock: a second for each row that was timed."""
    now = iter(range(100))
    model = tiny(task=task, max_tokens=10_000)
    cost = learn(model, lambda: float(next(now)))
    assert cost.microseconds(500) == pytest.approx(1_000_000, rel=0.01)
    assert len(model.order) == 8


def test_rows_of_one_length_tell_what_a_row_costs() -> None:
    """A model that cuts every text to a few tokens has no slope, and no division by zero."""
    cost = Cost([(3, 0.002)] * 4)
    assert (cost.per_token, cost.fixed) == (0.0, pytest.approx(0.002))
    cost.record(3, 0.002)
    assert cost.microseconds(3) == 2_000
