"""A connection for tasks that reconnects when it is lost."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from client_lib.aio_connection import AsyncConnection, TaskCall
from client_lib.dial import connect
from client_lib.recovery import Recovery
from client_lib.trust import Trust
from client_lib.wire.errors import (
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    Draining,
    Overloaded,
    SidecarError,
)
from client_lib.wire.protocol import Limits


class AsyncReconnectingConnection:
    """One event loop's link to the daemon: the current connection, and its successors.

    It enforces no deadlines: the caller cancels what takes too long.
    """

    def __init__(self, path: str, trust: Trust, *, retries: bool) -> None:
        self._path = path
        self._trust = trust
        self._recovery = Recovery(path, retries)
        self._connection: AsyncConnection | None = None
        self._dialing = asyncio.Lock()
        self._closing = asyncio.Event()

    async def begin(self, call: TaskCall) -> None:
        """Send `call` over a working connection, dialing until there is one."""
        call.connection = None
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._redial(call)
        call.connection = connection
        await connection.send(call)

    async def finish(self, call: TaskCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, resending it to as many daemons as it takes."""
        while True:
            assert call.connection is not None
            try:
                return await call.connection.wait(call)
            except Draining as error:
                call.connection.retire()
                self._recovery.connection_failed(call, error)
            except ConnectionLost as error:
                self._recovery.connection_failed(call, error)
            except Overloaded as error:
                await self._wait(self._recovery.seconds_after_refusal(error, call.left))
            except BaseException:
                call.connection.abandon(call)
                raise
            await self.begin(call)

    def late(self, call: TaskCall) -> SidecarError:
        """Return the error of a `call` that timed out: no answer, or no daemon to answer."""
        if call.connection is None:
            return self._recovery.unreachable()
        return CallTimeout(f"no answer from {self._path} within {call.timeout:g} s")

    async def close(self) -> None:
        """End the connection; calls in flight raise `ClientClosed`."""
        self._closing.set()
        async with self._dialing:
            if self._connection is not None:
                await self._connection.close(ClientClosed("the client was closed during the call"))

    async def _redial(self, call: TaskCall) -> AsyncConnection:
        # One task dials for all; the others wait here and use its connection.
        async with self._dialing:
            while self._connection is None or not self._connection.usable:
                await self._attempt(call)
            return self._connection

    async def _attempt(self, call: TaskCall) -> None:
        if call.failures:
            await self._wait(self._recovery.seconds_before_dial(call))
        try:
            limits = self._connection.limits if self._connection else Limits()
            self._connection = await _connect(self._path, self._trust, limits)
        except OSError as error:
            self._recovery.dial_failed(call, error)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        if self._closing.is_set():
            raise ClientClosed("the client was closed during the call")


async def _connect(path: str, trust: Trust, limits: Limits) -> AsyncConnection:
    sock = connect(path, trust)
    try:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(
            lambda: AsyncConnection(limits), sock=sock
        )
    except BaseException:
        sock.close()
        raise
    return connection
