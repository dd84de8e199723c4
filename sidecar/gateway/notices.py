"""What is said of connections that come to nothing: a line a minute for each reason."""

import time
from collections.abc import Callable

from sidecar.events import log

_SECONDS = 60.0


class Notices:
    """Says that connections were turned away, and why; few lines, however many those are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def turned_away(self, reason: str) -> None:
        """Count a connection, and say so unless that was said within the last minute."""
        count = self._unsaid[reason] = self._unsaid.get(reason, 0) + 1
        now = self._clock()
        if now - self._said.get(reason, -_SECONDS) >= _SECONDS:
            self._said[reason] = now
            self._unsaid[reason] = 0
            log.warning("gateway.turned_away", reason=reason, count=count)
