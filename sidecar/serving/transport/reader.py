"""What comes in from one peer: bytes to frames to requests, as there is room and time for them."""

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
# How often somebody looks whether a peer is there that is not read from.
_LOOK_SECONDS = 1.0


class PeerLeft(Exception):
    """Ends the session's group: nobody is left to answer."""


class Stalled(Exception):
    """The peer has not sent what it has to send in a while; says what that was."""


class FrameReader:
    """The reading end of a connection.

    `channel` has the bytes. What arrives of a long frame, and what is made of a frame, is held in
    the accounts before it is in memory. Decoding takes turns in the user's part of the loop's time.
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
        self._patience = self._stall_seconds  # what is left of it for hello, or a frame's rest
        self._arriving = context.accounts.requests.empty(peer)
        self._decoding = context.accounts.decoding.empty(peer)

    async def frame(self, group: asyncio.TaskGroup) -> bool:
        """Return True once a frame is whole, False once the peer has left.

        Raises `Stalled`, or `Overloaded` where there is no room for a long frame for too long.
        """
        while self._connection.whole is None:
            if not (data := await self._read(group)):
                return False
            self._connection.feed(data)
        return True

    async def take(self, group: asyncio.TaskGroup) -> Request | Refused:
        """Return what the frame is that is whole; `taken` has to follow."""
        await self._make_reserve_decoding(group)
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
        """Give back what was held for the frame: it is a request now, or nothing."""
        self._decoding.release()
        self._arriving.release()

    async def while_here(self, group: asyncio.TaskGroup, wait: Coroutine[Any, Any, _T]) -> _T:
        """Wait. Meanwhile nobody reads, and would see that the peer has left."""
        task = group.create_task(wait)
        while not (await asyncio.wait((task,), timeout=_LOOK_SECONDS))[0]:
            if has_left(self._sock):
                raise PeerLeft
        return task.result()

    async def _make_reserve_decoding(self, group: asyncio.TaskGroup) -> None:
        assert self._connection.whole is not None
        size = self._connection.most_decoding(self._connection.whole)
        if (hold := self._accounts.decoding.try_reserve(self._peer, size)) is not None:
            self._decoding.take(hold)
        else:
            room = self._accounts.reserve_decoding(self._peer, size)
            await self.while_here(group, _take_over(self._decoding, room))

    async def _make_room_to_read(self, group: asyncio.TaskGroup) -> int:
        """Return how much may be read now: of a long frame, what is held for it."""
        missing, arrived = self._connection.missing, self._connection.buffered
        if missing <= SHORT_READ_BYTES:
            return SHORT_READ_BYTES
        most = min(missing, LONG_READ_BYTES)
        if more := step_of_arriving(self._arriving.size, arrived + most, arrived + missing):
            room = self._accounts.reserve_arrival(self._peer, more)
            await self.while_here(group, _take_over(self._arriving, room))
        return most

    async def _read(self, group: asyncio.TaskGroup) -> bytes:
        """Return what the peer sends; b"" once it has left."""
        most = await self._make_room_to_read(group)
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


async def _take_over(mine: Reservation, room: Coroutine[Any, Any, Reservation]) -> None:
    """Have the bytes of `room` once there is any: in one step, so that none can be lost."""
    mine.take(await room)
