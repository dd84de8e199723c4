"""Accepts connections; every session is a task of the server's own group."""

import asyncio
from functools import partial
from typing import Self

from sidecar.serving.desk import Desk
from sidecar.serving.session import Session
from sidecar.serving.socket_file import Listener


class Server:
    """Listens on a socket file while it is entered.

    Leaving it ends every session, and waits until what they have written has gone out.
    """

    def __init__(self, desk: Desk, listener: Listener) -> None:
        self._desk = desk
        self._listener = listener
        self._sessions: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._server = await asyncio.start_unix_server(self._accept, sock=self._listener.socket)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.stop_accepting()
        for session in self._sessions:
            session.cancel()
        await self._group.__aexit__(*failure)  # type: ignore[arg-type]

    def stop_accepting(self) -> None:
        """Take the socket away; connections that are open stay open."""
        if self._server is not None:
            self._listener.unlink()
            self._server.close()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain callback: the task is the group's, not the standard library's.
        if self._server is None:  # asyncio hands over late what it had accepted just before
            writer.close()
            return
        session = self._group.create_task(Session(self._desk, reader, writer).run())
        self._sessions.add(session)
        session.add_done_callback(partial(self._end, writer))

    def _end(self, writer: asyncio.StreamWriter, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        writer.close()  # a session that was cancelled before its first step has not done it
