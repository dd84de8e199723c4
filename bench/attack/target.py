"""What an attacker attacks with: connections to one socket, chance, and a count of its deeds."""

import random
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from client_lib.wire.codec import encode
from client_lib.wire.frames import HEADER_BYTES
from client_lib.wire.messages import Hello, request_to_map
from client_lib.wire.protocol import VERSION

HELLO = encode(request_to_map(Hello(id=0, version=VERSION, client="attacker")))
LARGEST = 16 * 2**20
"""Bytes of the longest frame that a daemon takes by default."""
LONG = 15 * 2**20
_READ_BYTES = 2**18
_SECONDS = 5.0  # for which a write may take, or an answer is waited for


@dataclass(slots=True)
class Target:
    """One attacking process's view: `did` is to be called once a deed."""

    path: str
    chance: random.Random
    did: Callable[[], None]

    @contextmanager
    def connected(self, greeting: bytes = HELLO) -> Iterator[socket.socket]:
        """A connection on which `greeting` has been sent, for as long as the block takes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(self.path)
            sock.sendall(greeting)
            yield sock

    def opened(self, greeting: bytes) -> socket.socket | None:
        """Return a connection that is never waited for; None where the daemon takes no more."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(self.path)
            if greeting:
                sock.send(greeting)
        except OSError:
            sock.close()
            return None
        return sock


Run: TypeAlias = Callable[[Target], None]
Step: TypeAlias = Callable[[Target], None]


def framed(body: bytes) -> bytes:
    """Return `body` as one frame, whatever it is."""
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def over_and_over(step: Step) -> Run:
    """Return an attack that takes `step` again as soon as it ends or the daemon hangs up."""

    def run(target: Target) -> None:
        while True:
            with suppress(OSError):
                step(target)

    return run


def flood(frames: Callable[[Target, int], bytes], window: int = 64) -> Run:
    """Return an attack that sends `frames(target, id)` as fast as their answers are taken.

    `window` of them are on their way at once, on one connection after the other.
    """

    def step(target: Target) -> None:
        with target.connected() as sock:
            number = 1
            while True:
                sock.sendall(b"".join(frames(target, number + i) for i in range(window)))
                number += window
                for _ in range(window):
                    target.did()
                take_what_is_there(sock)

    return over_and_over(step)


def take_what_is_there(sock: socket.socket) -> None:
    """Read until nothing more is there. Raises `ConnectionError` where the daemon hung up."""
    while select.select([sock], [], [], 0)[0]:
        if not sock.recv(_READ_BYTES):
            raise ConnectionResetError


def ended(sock: socket.socket) -> None:
    """Read until the daemon hangs up, or says nothing for a while."""
    with suppress(OSError):
        while sock.recv(_READ_BYTES):
            pass


def until_answered(target: Target, frames: bytes) -> None:
    """Send `frames` on a connection of their own, and wait for the answer, or the end of it."""
    with target.connected() as sock:
        read_frame(sock)  # hello's
        target.did()
        sock.sendall(frames)
        read_frame(sock)


def read_frame(sock: socket.socket) -> bytes:
    """Return the body of the next frame. Raises `ConnectionError` where the daemon hung up."""
    return _read(sock, int.from_bytes(_read(sock, HEADER_BYTES), "big"))


def _read(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        if not (part := sock.recv(min(count, _READ_BYTES))):
            raise ConnectionResetError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def hold(count: int, greeting: bytes, drip: bytes = b"") -> Run:
    """Return an attack of `count` idle connections; one that the daemon closes is opened again.

    `drip` is sent on each of them once a second.
    """

    def run(target: Target) -> None:
        held: dict[int, socket.socket] = {}
        while True:
            _replace_ended(held)
            while len(held) < count and (sock := target.opened(greeting)) is not None:
                held[sock.fileno()] = sock
                target.did()
            select.select([], [], [], 1.0 if drip else 0.05)
            for sock in held.values() if drip else ():
                with suppress(OSError):
                    sock.send(drip)

    return run


def _replace_ended(held: dict[int, socket.socket]) -> None:
    poll = select.poll()
    for descriptor in held:
        poll.register(descriptor, 0)  # POLLHUP is told unasked
    for descriptor, _ in poll.poll(0):
        held.pop(descriptor).close()
