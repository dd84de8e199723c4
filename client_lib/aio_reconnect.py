"""How tasks get a connection, lose it, and get another."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from client_lib.aio_connection import AsyncConnection, TaskCall
from client_lib.dial import PASSING, backoff, connect, pause, unreachable
from client_lib.trust import Trust
from client_lib.wire.errors import (
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    Draining,
    Overloaded,
    SidecarError,
    UntrustedDaemon,
)
from client_lib.wire.protocol import Limits


class AsyncReconnectingConnection:
    """The way to the daemon: the connection in use, and how to get another.

    Deadlines are not its business: whoever awaits it cancels it.
    """

    def __init__(self, path: str, trust: Trust, *, retries: bool) -> None:
        self._path = path
        self._trust = trust
        self._retries = retries
        self._connection: AsyncConnection | None = None
        self._dialing = asyncio.Lock()
        self._closing = asyncio.Event()
        self._trouble: Exception | None = None

    async def begin(self, call: TaskCall) -> None:
        """Send `call` over a connection that lives, dialing until there is one."""
        call.link = None
        link = self._connection
        if link is None or not link.usable:
            link = await self._redial(call)
        call.link = link
        await link.send(call)

    async def finish(self, call: TaskCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, however many daemons it takes."""
        while True:
            assert call.link is not None
            try:
                return await call.link.wait(call)
            except Draining as error:
                call.link.retire()
                self._lose(call, error)
            except ConnectionLost as error:
                self._lose(call, error)
            except Overloaded as error:
                await self._hold_back(call, error)
            except BaseException:
                call.link.abandon(call)
                raise
            await self.begin(call)

    def late(self, call: TaskCall) -> SidecarError:
        """Return what it means that `call`'s time has run out: no answer, or no daemon."""
        if call.link is None:
            return unreachable(self._path, self._trouble)
        return CallTimeout(f"no answer from {self._path} within {call.timeout:g} s")

    async def close(self) -> None:
        """End the connection; calls in flight raise `ClientClosed`."""
        self._closing.set()
        async with self._dialing:
            if self._connection is not None:
                await self._connection.close(ClientClosed("the client was closed during the call"))

    async def _redial(self, call: TaskCall) -> AsyncConnection:
        # One dials for all; the others wait here and find its connection.
        async with self._dialing:
            while self._connection is None or not self._connection.usable:
                await self._attempt(call)
            return self._connection

    async def _attempt(self, call: TaskCall) -> None:
        if call.failures:
            await self._pause(pause(call.failures, self._trouble))
        try:
            limits = self._connection.limits if self._connection else Limits()
            self._connection = await _connect(self._path, self._trust, limits)
        except UntrustedDaemon:
            raise
        except PASSING as error:
            self._lose(call, error)
        except OSError as error:
            raise unreachable(self._path, error) from error

    async def _hold_back(self, call: TaskCall, refusal: Overloaded) -> None:
        seconds = backoff(refusal)
        if not self._retries or seconds >= call.left:
            raise refusal
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        if self._closing.is_set():
            raise ClientClosed("the client was closed during the call")

    def _lose(self, call: TaskCall, cause: Exception) -> None:
        self._trouble = cause
        call.failures += 1
        if not self._retries:
            raise (
                cause if isinstance(cause, Draining) else unreachable(self._path, cause)
            ) from cause


async def _connect(path: str, trust: Trust, limits: Limits) -> AsyncConnection:
    sock = connect(path, trust)
    try:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: AsyncConnection(limits), sock=sock)
    except BaseException:
        sock.close()
        raise
    return link
