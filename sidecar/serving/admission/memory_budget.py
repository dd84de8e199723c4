"""Bytes reserved for peers: limited in total, per user, and per process of a user.

Whatever the daemon keeps for a peer is reserved here first: its connection, the received part of
a long frame, a request until its reply has been read. What does not fit is rejected, or waits.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from sidecar.serving.admission.fair_share import (
    Occupancy,
    OccupancyTracker,
    most_of_process,
    most_of_user,
    plenty,
)
from sidecar.serving.admission.peer import Peer

# The weight of a new reservation's duration in the moving average.
_EMA_WEIGHT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that may be reserved: `total` bytes, shared by users and their processes.

    A process may have `part` of its user's share. Whoever holds nothing else may hold `least`,
    however small that share is, if it fits into the total.
    """

    total: int
    part: float = 0.5
    least: int = 0

    @property
    def of_a_process(self) -> int:
        """What a process may hold while nobody else holds anything."""
        return self.most_of_process(Occupancy(in_all=0, by_user=0, by_process=0))

    def most_of_user(self, held: Occupancy) -> int:
        """Return how much the user may hold, given what others hold."""
        return max(self.least, most_of_user(self.total, held))

    def most_of_process(self, held: Occupancy) -> int:
        """Return how much the process may hold, given what others hold."""
        return max(self.least, most_of_process(self.total, self.part, held))

    def has_room(self, held: Occupancy, size: int) -> bool:
        """Whether the process may hold `size` more."""
        return (
            held.in_all + size <= self.total
            and held.by_user + size <= self.most_of_user(held)
            and held.by_process + size <= self.most_of_process(held)
        )


class Reservation:
    """Bytes reserved for one peer. `release` gives them back, and may be called again."""

    __slots__ = ("_budget", "began", "lasting", "peer", "size")

    def __init__(self, budget: "MemoryBudget", peer: Peer, size: int, *, lasting: bool) -> None:
        self._budget = budget
        self.peer = peer
        self.size = size
        self.began = budget.clock()
        self.lasting = lasting

    def take(self, other: "Reservation") -> None:
        """Take over the bytes of `other`, a reservation of the same peer."""
        if not self.size:
            self.began = other.began
        self.size += other.size
        other.size = 0

    def release(self) -> None:
        """Give the bytes back, unless that has already happened."""
        size, self.size = self.size, 0
        if size:
            self._budget.give_back(self, size)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    peer: Peer
    size: int
    turn: asyncio.Future[Reservation]


class MemoryBudget:
    """Who has reserved how much. Use it on one event loop; `quota` may be replaced at any time."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self.quota = quota
        self.clock = clock
        self._holdings = OccupancyTracker()
        self._waiting: list[_Waiter] = []
        self._turns = count(1)
        self._last_turn: dict[int, int] = {}  # of users who are waiting, or have just waited
        self._mean_seconds = 0.0

    def try_reserve(
        self, peer: Peer, size: int, *, lasting: bool = False, always: bool = False
    ) -> Reservation | None:
        """Reserve `size` bytes for `peer`; return None if they do not fit now.

        Zero bytes always fit. `lasting`: nobody should wait for their release. `always`: reserve
        them even if they do not fit.
        """
        if size:
            if not (always or self._is_plenty(size) or self._has_room(peer, size)):
                return None
            self._holdings.add(peer, size)
        return Reservation(self, peer, size, lasting=lasting)

    def empty(self, peer: Peer) -> Reservation:
        """Return an empty reservation, to take over others."""
        return Reservation(self, peer, 0, lasting=False)

    async def reserve(self, peer: Peer, size: int) -> Reservation:
        """Wait for room and return a reservation.

        Of the waiters whose request fits, the one whose user was served the longest ago goes first.
        """
        if (reservation := self.try_reserve(peer, size)) is not None:
            return reservation
        waiter = _Waiter(peer, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():  # granted just now
                waiter.turn.result().release()
            else:
                self._forget(waiter)
            raise

    def give_back(self, reservation: Reservation, size: int) -> None:
        """Take back `size` bytes of `reservation`; only for `Reservation.release`."""
        self._holdings.remove(reservation.peer, size)
        if not reservation.lasting:
            self._mean_seconds += _EMA_WEIGHT * (
                self.clock() - reservation.began - self._mean_seconds
            )
        if self._waiting:
            self._serve_waiting()

    @property
    def seconds_until_room(self) -> float:
        """How long bytes have recently been held, on average: others will be released by then."""
        return self._mean_seconds

    def to_map(self) -> dict[str, Any]:
        """Return the budget as `status` reports it, in bytes."""
        return {
            "budget_bytes": self.quota.total,
            "budget_of_a_peer_bytes": self.quota.of_a_process,
            "held_bytes": self._holdings.in_all,
            "held_by_peer": {str(peer): size for peer, size in self._holdings.by_process.items()},
            "held_by_user": {str(uid): size for uid, size in self._holdings.by_user.items()},
        }

    def _is_plenty(self, size: int) -> bool:
        """Whether `size` fits whoever asks: the usual case, and quick to check."""
        return self._holdings.in_all + size < plenty(self.quota.part) * self.quota.total

    def _has_room(self, peer: Peer, size: int) -> bool:
        return self.quota.has_room(self._holdings.of(peer), size)

    def _serve_waiting(self) -> None:
        for waiter in sorted(self._waiting, key=self._turn_of):  # stable: first come, first served
            if waiter.turn.done():  # cancelled, and about to be removed
                continue
            if (reservation := self.try_reserve(waiter.peer, waiter.size)) is not None:
                self._last_turn[waiter.peer.uid] = next(self._turns)
                self._forget(waiter)
                waiter.turn.set_result(reservation)

    def _forget(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        if not self._waiting:
            self._last_turn.clear()

    def _turn_of(self, waiter: _Waiter) -> int:
        return self._last_turn.get(waiter.peer.uid, 0)
