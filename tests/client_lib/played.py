"""A daemon driven by the test, which decides what to read and when to answer."""

import socket
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from client_lib.wire.errors import ReplyError
from client_lib.wire.messages import Hello, Request
from client_lib.wire.protocol import VERSION, Limits, Refused, ServerConnection

from .fake_daemon import answer

_PATIENCE = 10.0


class PlayedDaemon:
    """Listens at `path`; nothing happens on its own."""

    def __init__(self, path: Path) -> None:
        self.socket = path
        self._open = ExitStack()
        self._listener = self._open.enter_context(socket.socket(socket.AF_UNIX))

    def __enter__(self) -> Self:
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._listener.settimeout(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def accept(self) -> "PlayedConnection":
        """Return the next connection."""
        sock, _ = self._listener.accept()
        sock.settimeout(_PATIENCE)
        return PlayedConnection(self._open.enter_context(sock))


class PlayedConnection:
    """One connection; its hello is answered automatically."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._server = ServerConnection(Limits())
        self._taken: list[Any] = []

    def take(self) -> Any:
        """Return the next request."""
        while not self._taken:
            for received in self._server.receive(self._sock.recv(65536)):
                assert not isinstance(received, Refused), received
                if isinstance(received, Hello):
                    self._greet(received)
                else:
                    self._taken.append(received)
        return self._taken.pop(0)

    def say(self, *frames: bytes) -> None:
        """Send frames in one piece."""
        self._sock.sendall(b"".join(frames))

    def answered(self, request: Request) -> bytes:
        """Return the frame that answers `request`."""
        return self._server.reply(request.id, **answer(request))

    def refused(self, request: Request, error: ReplyError) -> bytes:
        """Return the frame that refuses `request` with `error`."""
        return self._server.fail(request.id, error)

    def close(self) -> None:
        """Close the connection, even with unread data."""
        self._sock.close()

    def has_ended(self) -> bool:
        """Whether the client closes the connection without another request."""
        return self._taken == [] and self._sock.recv(65536) == b""

    def _greet(self, hello: Hello) -> None:
        self.say(self._server.reply(hello.id, version=VERSION, limits=asdict(Limits())))
