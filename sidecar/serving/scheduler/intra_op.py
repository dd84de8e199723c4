"""Decide whether a row that runs with nothing beside it may use all cores. Pure.

Threads that share a row wait for each other. If other processes keep the cores busy, the slowest
thread decides, and a single thread would have been faster. So the time of each shared row is
compared with that expected on one thread. After one that took longer, the next rows run on a
single thread: one row at first, and twice as many each time that it happens again.
"""

_MOST_SKIPPED = 1_024


class IntraOpPolicy:
    """Decides row by row, based on how the last ones went."""

    def __init__(self) -> None:
        self._skip = 0
        self._penalty = 1

    def may_run_parallel(self) -> bool:
        """Return whether the next row may use all cores."""
        if self._skip:
            self._skip -= 1
            return False
        return True

    def record(self, seconds: float, expected: float) -> None:
        """Record how long a shared row took, and how long it was expected to take on one thread."""
        if seconds > expected:
            self._skip = self._penalty
            self._penalty = min(2 * self._penalty, _MOST_SKIPPED)
        else:
            self._penalty = max(1, self._penalty // 2)
