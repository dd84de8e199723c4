"""Bytes that are held for peers: bounded in all, and for each of them.

Whatever the daemon keeps of a peer is held here first: its connection, a long frame that it
sends, a request until its reply has been taken. What does not fit is refused, or waited with.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

# How much of a new hold's length there is in the mean of all.
_NEWEST = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be held, in bytes: `total` in all, `of_a_peer` for one of them."""

    total: int
    of_a_peer: int


class Hold:
    """Some bytes of one peer; `release` gives them back, and once is enough."""

    __slots__ = ("_ledger", "began", "lasting", "peer", "size")

    def __init__(self, ledger: "Ledger", peer: Hashable, size: int, *, lasting: bool) -> None:
        self._ledger = ledger
        self.peer = peer
        self.size = size
        self.began = ledger.clock()
        self.lasting = lasting

    def release(self) -> None:
        """Give the bytes back, unless that has happened."""
        size, self.size = self.size, 0
        if size:
            self._ledger.let_go(self, size)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    peer: Hashable
    size: int
    turn: asyncio.Future[Hold]


class Ledger:
    """Who holds how much. Used on one loop alone; `budget` may be replaced at any time."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.clock = clock
        self._held: dict[Hashable, int] = {}
        self._total = 0
        self._waiting: deque[_Waiter] = deque()
        self._mean_seconds = 0.0

    def hold(self, peer: Hashable, size: int, *, lasting: bool = False) -> Hold | None:
        """Hold `size` bytes for `peer`; None where they do not fit now. Nothing always fits.

        `lasting`: nobody should wait for their release.
        """
        if size:
            own = self._held.get(peer, 0) + size
            if own > self.budget.of_a_peer or self._total + size > self.budget.total:
                return None
            self._held[peer] = own
            self._total += size
        return Hold(self, peer, size, lasting=lasting)

    async def room(self, peer: Hashable, size: int) -> Hold:
        """Return a hold as soon as there is room; of those who wait, the first whom it suits."""
        if (hold := self.hold(peer, size)) is not None:
            return hold
        waiter = _Waiter(peer, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():  # in the same moment
                waiter.turn.result().release()
            else:
                self._waiting.remove(waiter)
            raise

    def let_go(self, hold: Hold, size: int) -> None:
        """Take back the `size` bytes of `hold`; for `Hold.release` alone."""
        self._total -= size
        self._held[hold.peer] -= size
        if not self._held[hold.peer]:
            del self._held[hold.peer]
        if not hold.lasting:
            self._mean_seconds += _NEWEST * (self.clock() - hold.began - self._mean_seconds)
        if self._waiting:
            self._serve_waiting()

    @property
    def seconds_until_room(self) -> float:
        """For how long bytes have been held of late: by then, others will have been released."""
        return self._mean_seconds

    def to_map(self) -> dict[str, Any]:
        """Return what `status` says of it, in bytes."""
        return {
            "budget_bytes": self.budget.total,
            "budget_of_a_peer_bytes": self.budget.of_a_peer,
            "held_bytes": self._total,
            "held_by_peer": {str(peer): size for peer, size in self._held.items()},
        }

    def _serve_waiting(self) -> None:
        for waiter in list(self._waiting):
            if waiter.turn.done():  # cancelled, and about to say so
                continue
            if (hold := self.hold(waiter.peer, waiter.size)) is not None:
                self._waiting.remove(waiter)
                waiter.turn.set_result(hold)
