"""The memory that peers may use, in three budgets, and which of them each reservation uses."""

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
    """Memory budgets, sized by `settings` and by the models' `estimator`.

    `requests` covers requests and the frames that arrive for them; `decoding`, frames while they
    are decoded; `control`, connections and requests about the daemon itself. The process used
    `taken` bytes without peers.
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
        """Apply the settings and models of a reload. Existing reservations remain."""
        self._estimator = estimator
        self._stall_seconds = settings.access.stall_seconds
        budgets = self._budgets(settings)
        self.requests.quota = budgets.requests
        self.decoding.quota = budgets.decoding
        self.control.quota = budgets.control

    def reserve_request(self, peer: Peer, request: Request) -> Reservation:
        """Reserve what `request` needs until its reply has been read.

        Raises `TooLarge` or `Overloaded`.
        """
        size = self._estimator.of_request(request)
        if isinstance(request, Status | Metrics):
            return self._reserve_control(peer, size)
        if (reservation := self.requests.try_reserve(peer, size)) is not None:
            return reservation
        raise self._no_room(size)

    def reserve_connection(self, peer: Peer) -> Reservation:
        """Reserve what a connection needs. Raises `Overloaded`."""
        return self._reserve_control(peer, CONNECTION_BYTES, lasting=True)

    async def reserve_decoding(self, peer: Peer, size: int) -> Reservation:
        """Wait until `size` bytes for decoding a frame fit, and reserve them.

        Raises `Overloaded` if that takes longer than a peer may stall.
        """
        return await self._room(self.decoding, peer, size)

    async def reserve_arrival(self, peer: Peer, size: int) -> Reservation:
        """Wait until `size` more bytes of a frame fit, and reserve them.

        Raises `Overloaded` if that takes longer than a peer may stall.
        """
        return await self._room(self.requests, peer, size)

    def to_map(self) -> dict[str, Any]:
        """Return the budgets as `status` reports them, in bytes."""
        return {
            **self.requests.to_map(),
            "decoding": self.decoding.to_map(),
            "control": self.control.to_map(),
        }

    def _reserve_control(self, peer: Peer, size: int, *, lasting: bool = False) -> Reservation:
        reservation = self.control.try_reserve(peer, size, lasting=lasting, always=peer.is_operator)
        if reservation is None:
            raise self._no_room(0)
        return reservation

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
                f"the request takes up to {size} bytes of memory, more than the "
                f"{budget.of_a_process} that a process may use: split it"
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
