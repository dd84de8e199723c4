"""Limit log lines about misbehaving peers: a burst for each user, then one line at a time.

The limit is per user, not per process: a script that is started again and again is a new process
each time. Suppressed lines are counted, and the user's next line reports the count.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 5
_MAX_USERS = 256


@dataclass(slots=True)
class _Account:
    """How many lines a user has left, as of `at`, and how many were suppressed since the last."""

    lines: float
    at: float
    unlogged: int = 0


class LogRateLimiter:
    """Allows a few lines per user, in constant memory however many users there are.

    Each user regains one line every `seconds`.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._accounts: OrderedDict[int, _Account] = OrderedDict()

    def take(self, uid: int) -> int | None:
        """Return None if a line about `uid` is to be suppressed.

        Otherwise the line is to be written; return how many were suppressed before it.
        """
        account = self._account(uid)
        if account.lines < 1:
            account.unlogged += 1
            return None
        account.lines -= 1
        unlogged, account.unlogged = account.unlogged, 0
        return unlogged

    def _account(self, uid: int) -> _Account:
        now = self._clock()
        account = self._accounts.setdefault(uid, _Account(_BURST, now))
        self._accounts.move_to_end(uid)
        if len(self._accounts) > _MAX_USERS:
            self._accounts.popitem(last=False)
        account.lines = min(_BURST, account.lines + (now - account.at) / self._seconds)
        account.at = now
        return account
