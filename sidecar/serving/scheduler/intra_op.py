"""Whether a row that is alone is given all cores. PURE.

Threads that share a row wait for each other. Where other processes keep the cores busy, the
slowest of them decides, and one thread would have been sooner. So each shared row is compared
with what it was expected to take on one thread, and after one that took longer the next are
computed on one: one at first, and twice as many each time that it happens again.
"""

_MOST_SKIPPED = 1_024


class IntraOpPolicy:
    """Decides row by row, by how the last ones went."""

    def __init__(self) -> None:
        self._skip = 0
        self._penalty = 1

    def may_run_parallel(self) -> bool:
        """Return whether the row that is about to be computed may have all cores."""
        if self._skip:
            self._skip -= 1
            return False
        return True

    def record(self, seconds: float, expected: float) -> None:
        """Take in what a shared row took, and what it was expected to take on one thread."""
        if seconds > expected:
            self._skip = self._penalty
            self._penalty = min(2 * self._penalty, _MOST_SKIPPED)
        else:
            self._penalty = max(1, self._penalty // 2)
