"""One connection that tasks share. It has no task of its own: the transport calls it.

Nothing here handles cancellation: a cancelled task passes its call to `abandon`.
"""

import asyncio
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

from client_lib.calls import Call, Calls
from client_lib.wire.errors import ConnectionLost, SidecarError
from client_lib.wire.protocol import Limits


@dataclass(slots=True, eq=False)
class TaskCall(Call):
    """A call that a task waits for, with a deadline on the loop's clock.

    `connection` is None until there is a connection to send it over.
    """

    connection: "AsyncConnection | None" = None
    settled: asyncio.Future[None] | None = None

    @property
    def left(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


class AsyncConnection(asyncio.Protocol):
    """One connection, from the first frame to the end."""

    def __init__(self, limits: Limits) -> None:
        self._transport: asyncio.Transport
        self._calls: Calls[TaskCall] = Calls(limits)
        self._unsent_greeting = self._calls.greeting()
        self._writable = asyncio.Event()
        self._gone = asyncio.Event()
        self._retired = False
        self._ended: SidecarError | None = None

    @property
    def usable(self) -> bool:
        """Whether new calls may be sent over this connection."""
        return self._ended is None and not self._retired

    @property
    def limits(self) -> Limits:
        """The daemon's limits, as far as they are known."""
        return self._calls.limits

    async def send(self, call: TaskCall) -> None:
        """Write `call` once the transport accepts more. If the connection has ended, settle it."""
        while not self._writable.is_set():
            await self._writable.wait()
        if self._ended is not None:
            call.outcome = copy(self._ended)
            return
        frame = self._calls.add(call, call.left)
        # Hello and the first request are a single write. If a write fails, asyncio drops what it
        # has not read, so a second one could lose the very reply that explains the failure.
        self._transport.write(self._unsent_greeting + frame)
        self._unsent_greeting = b""

    async def wait(self, call: TaskCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, or raise its error."""
        if call.outcome is None:
            call.settled = asyncio.get_running_loop().create_future()
            await call.settled
        return call.result()

    def abandon(self, call: TaskCall) -> None:
        """Forget `call`, and cancel it in the daemon."""
        if self._ended is None and call.outcome is None:
            self._transport.write(self._calls.cancel(call))
            self._end_if_done()

    def retire(self) -> None:
        """Accept no more calls; end once those in flight are settled."""
        self._retired = True
        self._end_if_done()

    async def close(self, reason: SidecarError) -> None:
        """End now; calls in flight raise `reason`."""
        self._end(reason)
        await self._gone.wait()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for call in self._calls.receive(data):
                _wake(call)
        except SidecarError as error:
            self._end(error)
        self._end_if_done()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionLost(str(exc or "the daemon closed the connection")))
        self._gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end_if_done(self) -> None:
        if self._retired and not self._calls:
            self._end(ConnectionLost("the daemon is going away"))

    def _end(self, reason: SidecarError) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        self._writable.set()
        self._transport.abort()
        for call in self._calls.drop_all(reason):
            _wake(call)


def _wake(call: TaskCall) -> None:
    if call.settled is not None and not call.settled.done():
        call.settled.set_result(None)
