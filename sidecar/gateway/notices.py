"""Rate-limited logging of connections turned away: one line per reason and minute."""

import time
from collections.abc import Callable

from sidecar.events import log

_SECONDS = 60.0


class Notices:
    """Logs that connections were turned away and why, however many, in few lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def turned_away(self, reason: str) -> None:
        """Count a connection, and log the count unless `reason` was logged in the last minute."""
        count = self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
        now = self._clock()
        if now - self._logged_at.get(reason, -_SECONDS) >= _SECONDS:
            self._logged_at[reason] = now
            self._unlogged[reason] = 0
            log.warning("gateway.turned_away", reason=reason, count=count)
