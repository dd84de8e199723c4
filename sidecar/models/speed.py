"""Measure how fast models are on this host, one row at a time, as they are served."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TypeAlias

from sidecar.encoder.runtime import Session
from sidecar.models.compute import forward
from sidecar.models.manifest import Speed
from sidecar.models.rows import Row

Forward: TypeAlias = Callable[[Row], object]
Typical: TypeAlias = Callable[[Sequence[float]], float]
_ROUNDS = 5


def measure_speed(
    sessions: Mapping[str, Session], rows: Sequence[Row], typical: Typical = median
) -> dict[str, Speed]:
    """Return each session's speed on `rows`; see `take_turns`."""
    forwards = {name: partial(forward, session, "identity") for name, session in sessions.items()}
    return take_turns(forwards, rows, typical)


def take_turns(
    forwards: Mapping[str, Forward], rows: Sequence[Row], typical: Typical = median
) -> dict[str, Speed]:
    """Return each forward's speed on `rows`; `typical` picks one of a row's repeated times.

    The forwards take turns, row by row, so that other load on the host affects all of them alike.
    """
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in rows] for name in forwards}
    for _ in range(_ROUNDS):
        for index, row in enumerate(rows):
            for name, run in forwards.items():
                started = time.perf_counter()
                run(row)
                seconds[name][index].append(time.perf_counter() - started)
    return {name: _speed(times, rows, typical) for name, times in seconds.items()}


def _speed(times: list[list[float]], rows: Sequence[Row], typical: Typical) -> Speed:
    milliseconds = [1000 * typical(each) for each in times]
    by_length = sorted(range(len(rows)), key=lambda index: rows[index].tokens)
    return Speed(
        short_ms=round(milliseconds[by_length[0]], 3),
        long_ms=round(milliseconds[by_length[-1]], 3),
        mixed_ms=round(sum(milliseconds) / len(milliseconds), 3),
    )
