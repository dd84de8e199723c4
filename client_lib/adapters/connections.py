"""The connections of one adapter: its threads' one, and one for each event loop that uses it."""

import asyncio
import weakref
from pathlib import Path
from typing import Any

from client_lib import AsyncClient, Client, ClientClosed


class Connections:
    """`client` is for all threads, `here()` for the running event loop; each dials when used.

    A copy, by pickle or by `copy`, has connections of its own. What nobody closes is closed
    when nobody holds the adapter any more; an event loop's, also when that loop ends.
    """

    def __init__(self, socket: str | Path | None, timeout: float | None) -> None:
        self._where = socket, timeout
        self.client = Client(socket, timeout=timeout)
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        self._closed = False
        # What a framework makes from a configuration, nobody is there to close.
        weakref.finalize(self, self.client.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._where

    def here(self) -> AsyncClient:
        """Return the running loop's client."""
        if self._closed:
            raise ClientClosed("this adapter is closed; make another")
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._forget_ended_loops()
            socket, timeout = self._where
            self._by_loop[loop] = AsyncClient(socket, timeout=timeout)
        return self._by_loop[loop]

    def close(self) -> None:
        """Close the threads' connection; calls to come raise `ClientClosed`."""
        self._closed = True
        self.client.close()

    async def aclose(self) -> None:
        """Close the running loop's connection, too."""
        self.close()
        if client := self._by_loop.pop(asyncio.get_running_loop(), None):
            await client.close()

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in list(self._by_loop) if loop.is_closed()]:
            self._by_loop.pop(loop, None)
