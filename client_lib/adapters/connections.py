# ruff: noqa: ASYNC109 - a client's timeout covers reconnects
"""The connections of one adapter: its threads' one, and one for each event loop that uses it."""

import asyncio
import weakref
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from client_lib import AsyncClient, Client, ClientClosed


class Connections:
    """`client` is for all threads, `here()` for the running event loop; each dials when used.

    A copy, by pickle or by `copy`, has connections of its own. What nobody closes is closed
    when nobody holds the adapter any more; an event loop's, also when that loop ends.
    """

    def __init__(self, socket: str | Path | None, timeout: float) -> None:
        self._where = socket, timeout
        self.client = Client(socket, timeout=timeout)
        self._by_loop: dict[asyncio.AbstractEventLoop, _Opened] = {}
        self._closed = False
        # What a framework makes from a configuration, nobody is there to close.
        weakref.finalize(self, self.client.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._where

    async def here(self) -> AsyncClient:
        """Return the running loop's client."""
        if self._closed:
            raise ClientClosed("this adapter is closed; make another")
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._forget_ended_loops()
            lasting = _while_loop_lasts(*self._where)
            self._by_loop[loop] = lasting, await anext(lasting)
        return self._by_loop[loop][1]

    def close(self) -> None:
        """Close the threads' connection; calls to come raise `ClientClosed`."""
        self._closed = True
        self.client.close()

    async def aclose(self) -> None:
        """Close the running loop's connection, too."""
        self.close()
        if opened := self._by_loop.pop(asyncio.get_running_loop(), None):
            await opened[0].aclose()

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in list(self._by_loop) if loop.is_closed()]:
            self._by_loop.pop(loop, None)


async def _while_loop_lasts(
    socket: str | Path | None, timeout: float
) -> AsyncGenerator[AsyncClient, None]:
    # asyncio closes an async generator when its loop ends, and when nobody holds it any more.
    async with AsyncClient(socket, timeout=timeout) as client:
        yield client


_Opened = tuple[AsyncGenerator[AsyncClient, None], AsyncClient]
