"""Which lines about bad peers are written: the first few of each user, then one at a time.

By user and not by process: a script that is started again and again is a new process each time.
What is not written is counted, and the next line of that user says how many those were.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_AT_ONCE = 5
_MOST_USERS = 256


@dataclass(slots=True)
class _Account:
    """How many lines a user has left, as of `at`; how many were left out since the last."""

    lines: float
    at: float
    unlogged: int = 0


class LogRateLimiter:
    """A few lines for each user, and no more memory however many users there are.

    `seconds` after one more line may be written.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._accounts: OrderedDict[int, _Account] = OrderedDict()

    def take(self, uid: int) -> int | None:
        """Return None where a line about `uid` is to be left out.

        Else it is to be written, and what is returned is how many were left out before it.
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
        account = self._accounts.setdefault(uid, _Account(_AT_ONCE, now))
        self._accounts.move_to_end(uid)
        if len(self._accounts) > _MOST_USERS:
            self._accounts.popitem(last=False)
        account.lines = min(_AT_ONCE, account.lines + (now - account.at) / self._seconds)
        account.at = now
        return account
