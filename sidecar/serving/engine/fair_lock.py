"""One thread that several share: who gives it what to do next. Used on one loop alone."""

import asyncio
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from client_lib.wire.messages import Priority
from sidecar.serving.scheduler.sfq import Flow, StartTimeFairQueue

# How many interactive ones of a user that come later may overtake a bulk one.
OVERTAKING = 16
_KIND = "any"


@dataclass(frozen=True, slots=True, order=True)
class _Waiter:
    """Who waits, in the order of tickets."""

    ticket: int
    number: int
    cost: int = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class _User(Flow):
    """One user's waiters, a heap."""

    __slots__ = ("waiters",)

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.waiters: list[_Waiter] = []

    @property
    def kinds(self) -> Collection[str]:
        """There is but one, where anybody waits."""
        return (_KIND,) if self.waiters else ()


class FairLock:
    """Lets one in at a time. Users take turns by what those let in have cost.

    Of one user the first to arrive is the first in, but interactive ones overtake bulk ones.
    """

    def __init__(self) -> None:
        self._taken = False
        self._serial = count()
        self._users = StartTimeFairQueue(_User)

    async def acquire(self, priority: Priority, user: Hashable = None, cost: int = 1) -> None:
        """Return when it is this one's turn; it has to `release`."""
        number = next(self._serial)
        ticket = number + OVERTAKING if priority == "bulk" else number
        turn = asyncio.get_running_loop().create_future()
        waits = self._users.flow(user)
        heappush(waits.waiters, _Waiter(ticket, number, cost, turn))
        self._users.enqueue(waits)
        if not self._taken:
            self._taken = True
            self.release()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Let the next one in."""
        while (user := self._users.head()) is not None:
            waiter = heappop(user.waiters)
            if not waiter.turn.done():
                self._users.charge(user, waiter.cost)
                waiter.turn.set_result(None)
                return
        self._taken = False
