"""The connections of one adapter: one for all threads, and one per event loop."""

import asyncio
import weakref
from pathlib import Path
from typing import Any

from client_lib import AsyncClient, Client, ClientClosed


class Connections:
    """Clients that connect on first use: `client` for threads, `here()` for the event loop.

    A copy, made by pickle or `copy`, has connections of its own. A connection left open is closed
    when the adapter is garbage collected, and that of an event loop also when the loop ends.
    """

    def __init__(self, socket: str | Path | None, timeout: float | None) -> None:
        self._where = socket, timeout
        self.client = Client(socket, timeout=timeout)
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        self._closed = False
        # Nobody closes an adapter that a framework restored from a configuration.
        weakref.finalize(self, self.client.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._where

    def here(self) -> AsyncClient:
        """Return the running loop's client."""
        if self._closed:
            raise ClientClosed("this adapter is closed; create another")
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            self._forget_ended_loops()
            socket, timeout = self._where
            self._by_loop[loop] = AsyncClient(socket, timeout=timeout)
        return self._by_loop[loop]

    def close(self) -> None:
        """Close the connection shared by threads; later calls raise `ClientClosed`."""
        self._closed = True
        self.client.close()

    async def aclose(self) -> None:
        """Do what `close` does, and close the running loop's connection."""
        self.close()
        if client := self._by_loop.pop(asyncio.get_running_loop(), None):
            await client.close()

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in list(self._by_loop) if loop.is_closed()]:
            self._by_loop.pop(loop, None)
