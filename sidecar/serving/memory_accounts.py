"""The bytes that peers may have of the process, in three accounts, and what takes from which."""

import asyncio
from typing import Any

from client_lib.wire.errors import Overloaded, ReplyError, TooLarge
from client_lib.wire.messages import Metrics, Request, Status
from sidecar.events import log
from sidecar.serving.admission.memory_budget import MemoryBudget, Reservation
from sidecar.serving.admission.memory_estimator import (
    CONNECTION_BYTES,
    AvailableMemory,
    MemoryEstimator,
    Quotas,
)
from sidecar.serving.admission.peer import Peer
from sidecar.serving.settings import ServeSettings

_LEAST_WAIT_MS = 10


class MemoryAccounts:
    """Who holds how much of what there is, by `settings` and what the models make of requests.

    `requests`, with the frames that arrive for them; frames that are `decoding`; connections and
    requests about the daemon, under `control`. The process took `taken` bytes without peers.
    """

    def __init__(self, settings: ServeSettings, estimator: MemoryEstimator, taken: int) -> None:
        self._taken = taken
        self._estimator = estimator
        self._stall_seconds = settings.access.stall_seconds
        budgets = self._budgets(settings)
        self.requests = MemoryBudget(budgets.requests)
        self.decoding = MemoryBudget(budgets.decoding)
        self.control = MemoryBudget(budgets.control)

    def update(self, settings: ServeSettings, estimator: MemoryEstimator) -> None:
        """Go by other settings and models from now on."""
        self._estimator = estimator
        self._stall_seconds = settings.access.stall_seconds
        budgets = self._budgets(settings)
        self.requests.quota = budgets.requests
        self.decoding.quota = budgets.decoding
        self.control.quota = budgets.control

    def reserve_request(self, peer: Peer, request: Request) -> Reservation:
        """Hold what `request` needs until its reply has been taken.

        Raises `TooLarge` or `Overloaded`.
        """
        size = self._estimator.of_request(request)
        if isinstance(request, Status | Metrics):
            return self._reserve_control(peer, size)
        if (hold := self.requests.try_reserve(peer, size)) is not None:
            return hold
        raise self._no_room(size)

    def reserve_connection(self, peer: Peer) -> Reservation:
        """Hold what a connection takes. Raises `Overloaded`."""
        return self._reserve_control(peer, CONNECTION_BYTES, lasting=True)

    async def reserve_decoding(self, peer: Peer, size: int) -> Reservation:
        """Hold what decoding a frame takes at most, once that fits.

        Raises `Overloaded` where it does not for as long as a peer may stall.
        """
        return await self._room(self.decoding, peer, size)

    async def reserve_arrival(self, peer: Peer, size: int) -> Reservation:
        """Hold so many bytes more of a frame, once they fit.

        Raises `Overloaded` where they do not for as long as a peer may stall.
        """
        return await self._room(self.requests, peer, size)

    def to_map(self) -> dict[str, Any]:
        """Return what `status` says of them, in bytes."""
        return {
            **self.requests.to_map(),
            "decoding": self.decoding.to_map(),
            "control": self.control.to_map(),
        }

    def _reserve_control(self, peer: Peer, size: int, *, lasting: bool = False) -> Reservation:
        hold = self.control.try_reserve(peer, size, lasting=lasting, always=peer.is_operator)
        if hold is None:
            raise self._no_room(0)
        return hold

    async def _room(self, budget: MemoryBudget, peer: Peer, size: int) -> Reservation:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await budget.reserve(peer, size)
        except TimeoutError:
            raise self._no_room(0) from None

    def _no_room(self, size: int) -> ReplyError:
        budget = self.requests.quota
        if size > budget.of_a_process:
            return TooLarge(
                f"the request takes up to {size} bytes of memory; for all that a process asks "
                f"there are {budget.of_a_process}: split it"
            )
        seconds = min(self.requests.seconds_until_room, self._stall_seconds)
        wait_ms = max(_LEAST_WAIT_MS, round(1000 * seconds))
        message = f"no memory is left for more requests; retry in {wait_ms} ms"
        return Overloaded(message, retry_after_ms=wait_ms)

    def _budgets(self, settings: ServeSettings) -> Quotas:
        memory = AvailableMemory(
            ceiling=settings.memory_bytes,
            taken=self._taken + settings.cache_bytes,
            most=2 * settings.bounds.bytes,
            peer_share=settings.bounds.peer_share,
        )
        needs = self._estimator.needs(settings.limits)
        if memory.left < needs.all:
            log.warning(
                "memory.scarce",
                ceiling_bytes=memory.ceiling,
                taken_bytes=memory.taken,
                left_bytes=memory.left,
                budget_bytes=needs.all,
            )
        return memory.budgets(needs)
