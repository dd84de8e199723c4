"""Accepts connections, and runs each session as a task of the server's own group."""

import asyncio
import errno
import os
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import Self

from client_lib.wire.errors import ReplyError
from client_lib.wire.protocol import Refused, failure
from sidecar.events import log
from sidecar.serving.admission.peer import Peer, has_left
from sidecar.serving.context import ServerContext
from sidecar.serving.transport.listener import Listener
from sidecar.serving.transport.session import Session

# While the backlog is never empty, accepting takes half as much of the loop's time as everything
# else, within these bounds per round. Every `accept` releases the GIL.
_PART_OF_THE_REST = 0.5
_LEAST_ACCEPTING_SECONDS = 0.000_5
_MOST_ACCEPTING_SECONDS = 0.002
# Errors of `accept` that say that this process or host is short of something.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_SECONDS = 0.1
_BETWEEN_LINES_SECONDS = 60.0


class Server:
    """Accepts connections while it is entered.

    Leaving it ends every session and waits until what they have written has been sent.

    It does not use asyncio's server, which would call `listen` again, with a backlog of 100 and
    possibly as another process than the one that clients trust, and which accepts all of the
    backlog before it does anything else.
    """

    def __init__(self, context: ServerContext, listener: Listener) -> None:
        self._context = context
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._sessions: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._accepting = False
        self._accepted = 0.0  # when the last one was, by `time.perf_counter`
        self._pause: asyncio.TimerHandle | None = None
        # Peers rejected in this round, with the frame that says why.
        self._rejected: dict[Peer, tuple[Refused, bytes]] = {}
        self._last_logged = -_BETWEEN_LINES_SECONDS  # when exhaustion was last logged

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._listener.socket.setblocking(False)
        self._accepting = True
        self._loop.add_reader(self._listener.socket, self._accept)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.stop_accepting()
        for session in self._sessions:
            session.cancel()
        await self._group.__aexit__(*failure)  # type: ignore[arg-type]

    def stop_accepting(self) -> None:
        """Close and unlink the socket; open connections stay open."""
        if self._accepting:
            self._accepting = False
            self._listener.unlink()
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._listener.socket)
            self._listener.socket.close()

    def _accept(self) -> None:
        """Accept connections from the backlog, for a limited time."""
        started = time.perf_counter()
        ending = started + self._seconds_for(started)
        self._rejected.clear()
        while True:
            try:
                sock = _accepted(self._listener.socket)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._log_exhausted(error)
                self._pause_accepting()
                return
            self._open(sock)
            self._accepted = time.perf_counter()
            if self._accepted >= ending:
                return

    def _seconds_for(self, started: float) -> float:
        """Return how long a round of accepting that has just `started` may take."""
        part = _PART_OF_THE_REST * (started - self._accepted)
        return min(max(part, _LEAST_ACCEPTING_SECONDS), _MOST_ACCEPTING_SECONDS)

    def _open(self, sock: socket.socket) -> None:
        if has_left(sock):  # the usual case for clients that connect and leave in a loop
            sock.close()
            return
        sock.setblocking(False)
        peer = Peer.of(sock)
        if peer in self._rejected:  # nobody has left since
            self._reject(sock, peer)
            return
        try:
            admission = self._context.connect(peer)
        except ReplyError as refusal:
            refused = Refused(None, refusal, True)
            self._rejected[peer] = refused, failure(None, refusal)
            self._reject(sock, peer)
            return
        session = self._group.create_task(Session(self._context, sock, peer).run())
        self._sessions.add(session)
        session.add_done_callback(partial(self._end, sock, admission))

    def _reject(self, sock: socket.socket, peer: Peer) -> None:
        """Send a peer the reason for its rejection, and close its connection."""
        refused, frame = self._rejected[peer]
        self._context.log_rejection(peer, refused)
        with sock, suppress(OSError):
            sock.send(frame)

    def _end(self, sock: socket.socket, admission: ExitStack, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        sock.close()  # a session cancelled before its first step has not closed it
        admission.close()

    def _pause_accepting(self) -> None:
        """Ignore the backlog for a moment; the kernel would report it as readable at once."""
        self._loop.remove_reader(self._listener.socket)
        self._pause = self._loop.call_later(_EXHAUSTED_SECONDS, self._resume_accepting)

    def _log_exhausted(self, error: OSError) -> None:
        if self._loop.time() - self._last_logged >= _BETWEEN_LINES_SECONDS:
            self._last_logged = self._loop.time()
            log.error("server.exhausted", reason=os.strerror(error.errno or 0))

    def _resume_accepting(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.socket, self._accept)


def _accepted(listening: socket.socket) -> socket.socket:
    """Do what `socket.accept` does, without its system calls for the family and type."""
    descriptor, _ = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
