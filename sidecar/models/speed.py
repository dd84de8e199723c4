"""How fast graphs are on this host: one row at a time on one thread, as they will be served."""

import time
from collections.abc import Mapping, Sequence
from statistics import median

from sidecar.encoder.runtime import Session
from sidecar.models.manifest import Speed
from sidecar.models.model import forward
from sidecar.models.rows import Row

_ROUNDS = 5


def measure_speed(sessions: Mapping[str, Session], rows: Sequence[Row]) -> dict[str, Speed]:
    """Return each session's speed on `rows`.

    The sessions take turns, row by row: what else the host does meets them all alike.
    """
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in rows] for name in sessions}
    for _ in range(_ROUNDS):
        for index, row in enumerate(rows):
            for name, session in sessions.items():
                started = time.perf_counter()
                forward(session, "identity", row)
                seconds[name][index].append(time.perf_counter() - started)
    return {name: _speed(times, rows) for name, times in seconds.items()}


def _speed(times: list[list[float]], rows: Sequence[Row]) -> Speed:
    medians = [1000 * median(each) for each in times]
    by_length = sorted(range(len(rows)), key=lambda index: rows[index].tokens)
    return Speed(
        short_ms=round(medians[by_length[0]], 3),
        long_ms=round(medians[by_length[-1]], 3),
        mixed_ms=round(sum(medians) / len(medians), 3),
    )
