"""Accepts connections; every session is a task of the server's own group."""

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

# While the queue is never empty, accepting has half as much of the loop's time as all the rest,
# between a least and a most in one round. Every `accept` lets threads have the interpreter's lock.
_PART_OF_THE_REST = 0.5
_LEAST_ACCEPTING_SECONDS = 0.000_5
_MOST_ACCEPTING_SECONDS = 0.002
# What keeps the kernel from handing over a connection, and is no fault of the peer's.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_SECONDS = 0.1
_BETWEEN_LINES_SECONDS = 60.0


class Server:
    """Listens on a socket file while it is entered.

    Leaving it ends every session, and waits until what they have written has gone out.

    It accepts by itself. asyncio would listen again, with a queue of 100, and as another process
    than the one that the clients may trust; and it would take all that stand in the queue before
    it does anything else.
    """

    def __init__(self, context: ServerContext, listener: Listener) -> None:
        self._context = context
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._sessions: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._accepting = False
        self._accepted = 0.0  # when one was accepted last, by `time.perf_counter`
        self._pause: asyncio.TimerHandle | None = None
        # Whom this round has turned away, and the bytes that say so.
        self._turned_away: dict[Peer, tuple[Refused, bytes]] = {}
        self._told = -_BETWEEN_LINES_SECONDS  # when it was last told that nothing is left

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
        """Take the socket away; connections that are open stay open."""
        if self._accepting:
            self._accepting = False
            self._listener.unlink()
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._listener.socket)
            self._listener.socket.close()

    def _accept(self) -> None:
        """Let in who stands in the queue, some of them."""
        started = time.perf_counter()
        ending = started + self._seconds_for(started)
        self._turned_away.clear()
        while True:
            try:
                sock = _accepted(self._listener.socket)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._log_exhausted(error)
                self._rest()
                return
            self._open(sock)
            self._accepted = time.perf_counter()
            if self._accepted >= ending:
                return

    def _seconds_for(self, started: float) -> float:
        """Return how long accepting may go on that has `started`."""
        part = _PART_OF_THE_REST * (started - self._accepted)
        return min(max(part, _LEAST_ACCEPTING_SECONDS), _MOST_ACCEPTING_SECONDS)

    def _open(self, sock: socket.socket) -> None:
        if has_left(sock):  # as most have that connect and leave in a loop
            sock.close()
            return
        sock.setblocking(False)
        peer = Peer.of(sock)
        if peer in self._turned_away:  # and nobody has left since
            self._turn_away(sock, peer)
            return
        try:
            place = self._context.connect(peer)
        except ReplyError as refusal:
            refused = Refused(None, refusal, True)
            self._turned_away[peer] = refused, failure(None, refusal)
            self._turn_away(sock, peer)
            return
        session = self._group.create_task(Session(self._context, sock, peer).run())
        self._sessions.add(session)
        session.add_done_callback(partial(self._end, sock, place))

    def _turn_away(self, sock: socket.socket, peer: Peer) -> None:
        """Tell a peer why it does not come in: at no more cost than that."""
        refused, frame = self._turned_away[peer]
        self._context.log_rejection(peer, refused)
        with sock, suppress(OSError):
            sock.send(frame)

    def _end(self, sock: socket.socket, place: ExitStack, session: asyncio.Task[None]) -> None:
        self._sessions.discard(session)
        sock.close()  # a session that was cancelled before its first step has not done it
        place.close()

    def _rest(self) -> None:
        """Leave the queue alone for a moment: the kernel would report it again at once."""
        self._loop.remove_reader(self._listener.socket)
        self._pause = self._loop.call_later(_EXHAUSTED_SECONDS, self._go_on)

    def _log_exhausted(self, error: OSError) -> None:
        if self._loop.time() - self._told >= _BETWEEN_LINES_SECONDS:
            self._told = self._loop.time()
            log.error("server.exhausted", reason=os.strerror(error.errno or 0))

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.socket, self._accept)


def _accepted(listening: socket.socket) -> socket.socket:
    """Return what `socket.accept` does, which finds out its own family and type each time."""
    descriptor, _ = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
