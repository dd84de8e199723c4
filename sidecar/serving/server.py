"""Accepts connections; every session is a task of the server's own group."""

import asyncio
from typing import Self

from sidecar.serving.desk import Desk
from sidecar.serving.session import Session
from sidecar.serving.socket_file import SocketFile


class Server:
    """Listens on a socket file while it is entered; leaving it waits for every session."""

    def __init__(self, desk: Desk, listener: SocketFile) -> None:
        self._desk = desk
        self._listener = listener
        self._sessions: set[Session] = set()
        self._group = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._server = await asyncio.start_unix_server(self._accept, sock=self._listener.socket)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.stop_accepting()
        self.close_sessions()
        await self._group.__aexit__(*failure)  # type: ignore[arg-type]

    def stop_accepting(self) -> None:
        """Take the socket away; connections that are open stay open."""
        if self._server is not None:
            self._listener.unlink()
            self._server.close()
            self._server = None

    def close_sessions(self) -> None:
        """End every session; replies that are written still go out."""
        for session in self._sessions:
            session.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain callback: the task is the group's, not the standard library's.
        self._group.create_task(self._serve(Session(self._desk, reader, writer)))

    async def _serve(self, session: Session) -> None:
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
