"""A lock that decides which request uses a shared thread next. Use it on a single event loop."""

import asyncio
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from client_lib.wire.messages import Priority
from sidecar.serving.scheduler.sfq import Flow, StartTimeFairQueue

# How many later interactive requests of the same user may overtake a bulk one.
OVERTAKING = 16
_KIND = "any"


@dataclass(frozen=True, slots=True, order=True)
class _Waiter:
    """A waiting request; waiters are ordered by ticket."""

    ticket: int
    number: int
    cost: int = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class _User(Flow):
    """One user's waiters, as a heap."""

    __slots__ = ("waiters",)

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.waiters: list[_Waiter] = []

    @property
    def kinds(self) -> Collection[str]:
        """The only kind, while anybody waits."""
        return (_KIND,) if self.waiters else ()


class FairLock:
    """A lock for which users take turns, weighted by the cost of what they were granted it for.

    Within a user it is first come, first served, but interactive requests overtake bulk ones.
    """

    def __init__(self) -> None:
        self._taken = False
        self._serial = count()
        self._users = StartTimeFairQueue(_User)

    async def acquire(self, priority: Priority, user: Hashable = None, cost: int = 1) -> None:
        """Wait for the lock; the caller has to `release` it."""
        number = next(self._serial)
        ticket = number + OVERTAKING if priority == "bulk" else number
        turn = asyncio.get_running_loop().create_future()
        flow = self._users.flow(user)
        heappush(flow.waiters, _Waiter(ticket, number, cost, turn))
        self._users.enqueue(flow)
        if not self._taken:
            self._taken = True
            self.release()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # granted at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Grant the lock to the next waiter, if any."""
        while (user := self._users.head()) is not None:
            waiter = heappop(user.waiters)
            if not waiter.turn.done():
                self._users.charge(user, waiter.cost)
                waiter.turn.set_result(None)
                return
        self._taken = False
