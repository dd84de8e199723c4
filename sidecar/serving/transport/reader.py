"""Read a peer's bytes into frames and requests, as memory and loop time allow."""

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from client_lib.wire.messages import Request
from client_lib.wire.protocol import Refused, ServerConnection
from sidecar.serving.admission.memory_budget import Reservation
from sidecar.serving.admission.memory_estimator import (
    LONG_READ_BYTES,
    SHORT_READ_BYTES,
    step_of_arriving,
)
from sidecar.serving.admission.peer import Peer, has_left
from sidecar.serving.context import ServerContext
from sidecar.serving.transport.channel import Channel

_T = TypeVar("_T")
# How often to check whether a peer is still there while its socket is not being read.
_LOOK_SECONDS = 1.0


class PeerLeft(Exception):
    """Ends the session's task group: the peer is gone."""


class Stalled(Exception):
    """The peer has not sent what it has to in time; the message names what was awaited."""


class FrameReader:
    """The reading end of a connection.

    `channel` has the bytes. Memory for long frames, and for decoding any frame, is reserved
    before it is used. Decoding takes turns in the user's share of the loop's time.
    """

    def __init__(
        self, context: ServerContext, peer: Peer, sock: socket.socket, connection: ServerConnection
    ) -> None:
        self.channel = Channel(context.inbox)
        self._peer = peer
        self._sock = sock
        self._connection = connection
        self._accounts = context.accounts
        self._loop_time = context.loop_time
        self._stall_seconds = context.settings.access.stall_seconds
        self._patience = self._stall_seconds  # what is left, for hello or the rest of a frame
        self._arriving = context.accounts.requests.empty(peer)
        self._decoding = context.accounts.decoding.empty(peer)

    async def frame(self, group: asyncio.TaskGroup) -> bool:
        """Return True once a whole frame has arrived, or False if the peer has left.

        Raises `Stalled`, or `Overloaded` if memory for a long frame stays unavailable for too long.
        """
        while self._connection.whole is None:
            if not (data := await self._read(group)):
                return False
            self._connection.feed(data)
        return True

    async def take(self, group: asyncio.TaskGroup) -> Request | Refused:
        """Decode the frame that has arrived. Call `taken` when done with it."""
        await self._reserve_decoding(group)
        steps = self._connection.take()
        while True:
            if self._loop_time.is_over(self._peer.uid):
                await self._loop_time.turn(self._peer.uid)
            started = time.perf_counter()
            received = next(steps)
            self._loop_time.spend(self._peer.uid, started)
            if received is not None:
                return received

    def taken(self) -> None:
        """Release the memory of the frame, which has become a request or been dropped."""
        self._decoding.release()
        self._arriving.release()

    async def while_here(self, group: asyncio.TaskGroup, wait: Coroutine[Any, Any, _T]) -> _T:
        """Wait, and raise `PeerLeft` if the peer leaves: nobody reads meanwhile to notice it."""
        task = group.create_task(wait)
        while not (await asyncio.wait((task,), timeout=_LOOK_SECONDS))[0]:
            if has_left(self._sock):
                raise PeerLeft
        return task.result()

    async def _reserve_decoding(self, group: asyncio.TaskGroup) -> None:
        assert self._connection.whole is not None
        size = self._connection.most_decoding(self._connection.whole)
        if (reservation := self._accounts.decoding.try_reserve(self._peer, size)) is not None:
            self._decoding.take(reservation)
        else:
            pending = self._accounts.reserve_decoding(self._peer, size)
            await self.while_here(group, _take_over(self._decoding, pending))

    async def _reserve_read(self, group: asyncio.TaskGroup) -> int:
        """Return how much may be read now; for a long frame, reserve the memory first."""
        missing, arrived = self._connection.missing, self._connection.buffered
        if missing <= SHORT_READ_BYTES:
            return SHORT_READ_BYTES
        most = min(missing, LONG_READ_BYTES)
        if more := step_of_arriving(self._arriving.size, arrived + most, arrived + missing):
            pending = self._accounts.reserve_arrival(self._peer, more)
            await self.while_here(group, _take_over(self._arriving, pending))
        return most

    async def _read(self, group: asyncio.TaskGroup) -> bytes:
        """Return what the peer sends, or b"" once it has left."""
        most = await self._reserve_read(group)
        awaited = self._connection.awaited
        if awaited is None:
            self._patience = self._stall_seconds
            return await self.channel.read(most)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                return await self.channel.read(most)
        except TimeoutError:
            raise Stalled(awaited) from None
        finally:
            self._patience -= time.monotonic() - started


async def _take_over(own: Reservation, pending: Coroutine[Any, Any, Reservation]) -> None:
    """Add the bytes of `pending` to `own` without a further await, so that none can be lost."""
    own.take(await pending)
