"""How speed is measured, with a clock that the test controls."""

from statistics import median

import numpy as np
import pytest

from sidecar.models import speed
from sidecar.models.manifest import Speed
from sidecar.models.rows import Row
from sidecar.models.speed import take_turns

LENGTHS = (9, 30, 3, 12)


@pytest.fixture
def rows() -> list[Row]:
    return [
        Row(np.zeros(tokens, np.int64), np.zeros(tokens, np.int64), truncated=False)
        for tokens in LENGTHS
    ]


class Clock:
    """Advances only while a model computes: by `per_token` seconds per token, sometimes more."""

    def __init__(self) -> None:
        self.now = 100.0
        self.turns: list[tuple[str, int]] = []

    def forward(self, name: str, per_token: float) -> speed.Forward:
        def run(row: Row) -> None:
            before = self.turns.count((name, row.tokens))
            self.turns.append((name, row.tokens))
            # The first and the last are slow, as if something else ran on the host.
            self.now += row.tokens * per_token * (5, 1, 2, 1, 3)[before]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(speed, "_ROUNDS", 5)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock.now)
    return clock


def test_speed_is_in_milliseconds_by_length(clock: Clock, rows: list[Row]) -> None:
    """Speed is in milliseconds: the median of the shortest row, of the longest, and their mean."""
    forwards = {"none": clock.forward("none", 0.004), "int8": clock.forward("int8", 0.001)}
    usual, mean = median((5, 1, 2, 1, 3)), sum(LENGTHS) / len(LENGTHS)
    assert take_turns(forwards, rows) == {
        "none": Speed(3 * 4 * usual, 30 * 4 * usual, mean * 4 * usual),
        "int8": Speed(3 * usual, 30 * usual, mean * usual),
    }


def test_another_typical_time_may_be_asked_for(clock: Clock, rows: list[Row]) -> None:
    """Another statistic than the median may be used, such as the minimum."""
    found = take_turns({"one": clock.forward("one", 0.001)}, rows, min)
    assert found == {"one": Speed(3, 30, sum(LENGTHS) / len(LENGTHS))}


def test_they_take_turns_row_by_row(clock: Clock, rows: list[Row]) -> None:
    """Models take turns row by row, so that other load on the host affects all of them."""
    take_turns({name: clock.forward(name, 0.001) for name in ("a", "b")}, rows)
    a_round = [(name, tokens) for tokens in LENGTHS for name in ("a", "b")]
    assert clock.turns == 5 * a_round
