"""One connection that threads share, without a thread of its own.

A thread that waits and finds no leader becomes the leader: only the leader polls the socket, reads
it, writes what is still unsent, and wakes threads whose replies have arrived. Once its own reply is
there, it hands the lead to another waiting thread. One lock guards everything and is never held
across a wait.

Why it does not deadlock. A frame that the socket does not accept at once stays in the outbox, and
its sender goes on to wait like any other. So there is always a leader among the waiting threads,
and it reads and writes in turn: a daemon that accepts nothing more until its replies are read gets
them read.

Why epoll. A thread that sends may have to change what the leader already waits for, and
`epoll_ctl` does that to a poll in progress; no pipe is needed to wake it.
"""

import select
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from time import monotonic
from typing import Any

from client_lib.calls import HELLO_ID, Call, Calls
from client_lib.outbox import Outbox
from client_lib.wire.errors import CallTimeout, ConnectionLost, SidecarError
from client_lib.wire.protocol import Limits

_READ_BYTES = 256 * 1024
_LONGEST_POLL = 86_400.0  # seconds; epoll counts milliseconds in 31 bits
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT


@dataclass(slots=True, eq=False)
class ThreadCall(Call):
    """A call that a thread waits for, with a deadline on the clock of `time.monotonic`."""

    connection: "Connection | None" = None

    @property
    def left(self) -> float:
        """Seconds until the deadline; never negative."""
        return max(0.0, self.deadline - monotonic())


class Connection:
    """One connection, from the first frame to the end."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock = sock
        self._epoll = select.epoll()
        self._epoll.register(sock, _READ)
        self._watched = _READ
        self._inbox = memoryview(bytearray(_READ_BYTES))
        self._outbox = Outbox()
        self._calls: Calls[ThreadCall] = Calls(limits)
        self._lock = threading.Lock()
        self._leader: ThreadCall | None = None
        self._followers: dict[int, threading.Condition] = {}
        self._retired = False
        self._reason: SidecarError | None = None
        self._ended: SidecarError | None = None
        self._outbox.put(HELLO_ID, self._calls.greeting())

    @property
    def usable(self) -> bool:
        """Whether new calls may be sent over this connection."""
        return self._ended is None and not self._retired

    @property
    def limits(self) -> Limits:
        """The daemon's limits, as far as they are known."""
        return self._calls.limits

    def send(self, call: ThreadCall) -> None:
        """Send or enqueue `call`; never blocks. If the connection has ended, settle it."""
        with self._lock:
            if self._ended is not None:
                call.outcome = copy(self._ended)
                return
            self._post(call.id, self._calls.add(call, call.left))

    def wait(self, call: ThreadCall) -> Mapping[str, Any]:
        """Return the body of `call`'s reply, or raise its error."""
        try:
            while self._leads(call):
                self._pump(call)
        finally:
            self._leave(call)
        return call.result()

    def abandon(self, call: ThreadCall) -> None:
        """Forget `call`; if the daemon may have received any of it, cancel it there."""
        with self._lock:
            if self._ended is not None or call.outcome is not None:
                return
            cancel = self._calls.cancel(call)
            if not self._outbox.withdraw(call.id):
                self._post(call.cancel_id, cancel)
            self._end_if_done()

    def retire(self) -> None:
        """Accept no more calls; end once those in flight are settled."""
        with self._lock:
            self._retired = True
            self._end_if_done()

    def close(self, reason: SidecarError) -> None:
        """End now; calls in flight raise `reason`."""
        with self._lock:
            self._reason = reason
            # A leader may be using the socket: it notices the shutdown, and ends then.
            self._shut_down()
            self._end_if_done()

    def disown(self) -> None:
        """Release a connection that a fork has copied, without affecting the parent's."""
        self._epoll.close()
        self._sock.close()

    # Leading and following. The rest runs with the lock held, except for the poll in `_pump`.

    def _leads(self, call: ThreadCall) -> bool:
        """Follow until `call` is settled (False) or has the lead (True)."""
        with self._lock:
            while call.outcome is None:
                if self._leader is None or self._leader is call:
                    self._leader = call
                    return True
                self._follow(call)
            return False

    def _follow(self, call: ThreadCall) -> None:
        if (left := call.left) == 0:
            raise CallTimeout
        wake = self._followers.setdefault(call.id, threading.Condition(self._lock))
        wake.wait(min(left, threading.TIMEOUT_MAX))

    def _leave(self, call: ThreadCall) -> None:
        # A thread that leaves, for whatever reason, makes sure that a remaining one leads. It may
        # have been woken to lead at the very moment when its time ran out.
        with self._lock:
            self._followers.pop(call.id, None)
            if self._leader is call:
                self._leader = None
            if self._leader is None:
                self._hand_on()
            self._end_if_done()

    def _hand_on(self) -> None:
        if wake := next(iter(self._followers.values()), None):
            wake.notify()

    def _pump(self, call: ThreadCall) -> None:
        if (left := call.left) == 0:
            raise CallTimeout
        if not (ready := self._epoll.poll(min(left, _LONGEST_POLL))):
            return  # if the time is up, the next round raises
        events = ready[0][1]
        with self._lock:
            if events & _WRITE:
                self._flush()
            if events & ~_WRITE:
                self._read()

    # The socket.

    def _post(self, request_id: int, frame: bytes) -> None:
        self._outbox.put(request_id, frame)
        self._flush()

    def _flush(self) -> None:
        try:
            self._outbox.flush(self._sock)
        except BlockingIOError:
            pass
        except OSError:
            # The daemon is gone. Reading reveals why, after whatever it wrote last.
            self._outbox.clear()
        watched = _READ | _WRITE if self._outbox else _READ
        if watched != self._watched:
            self._epoll.modify(self._sock, watched)
            self._watched = watched

    def _read(self) -> None:
        try:
            size = self._sock.recv_into(self._inbox)
        except OSError as error:
            self._end(self._reason or ConnectionLost(str(error)))
            return
        if size == 0:
            self._end(self._reason or ConnectionLost("the daemon closed the connection"))
        else:
            self._dispatch(self._inbox[:size])

    def _dispatch(self, data: memoryview) -> None:
        try:
            for call in self._calls.receive(data):
                self._wake(call)
        except SidecarError as error:
            self._end(error)

    def _wake(self, call: ThreadCall) -> None:
        if wake := self._followers.get(call.id):
            wake.notify()

    def _end_if_done(self) -> None:
        if self._ended is not None:
            return
        if self._reason is not None and self._leader is None:
            self._end(self._reason)
        elif self._retired and not self._calls:
            self._end(ConnectionLost("the daemon is going away"))

    def _end(self, reason: SidecarError) -> None:
        self._ended = reason
        self._shut_down()
        self._epoll.close()
        self._sock.close()
        for call in self._calls.drop_all(reason):
            self._wake(call)

    def _shut_down(self) -> None:
        # The daemon sees the end even if a forked child still holds a copy of the socket.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
