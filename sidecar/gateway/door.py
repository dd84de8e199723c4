"""Connection limit: which connections are open, and which one to close for a new one. No I/O.

All local callers share one address, so an active caller can only be told from one that merely holds
connections by its requests in progress. At the limit a connection without one is closed: first the
one whose request has been due for longest, if over a second, then the one idle for longest.
"""

import ipaddress
import time
from collections.abc import Callable, Iterator
from typing import Protocol

_PROMPT_SECONDS = 1.0
"""How long a request may be due before its connection is the first to be closed."""


class Caller(Protocol):
    """The part of a connection that the door needs."""

    @property
    def address(self) -> str | None:
        """The peer's IP address; None over a Unix socket."""


class Door:
    """Admits at most `most` connections, half of them from any one remote host."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._inside: set[Caller] = set()
        # By time of entry into the state, oldest first.
        self._due: dict[Caller, float] = {}
        self._idle: dict[Caller, float] = {}

    def enter(self, caller: Caller) -> Caller | None:
        """Admit `caller`; return the connection to close for it: another, itself, or None."""
        leaving = self._who_leaves(caller.address)
        full = leaving is None and self._is_full(caller.address)
        if leaving is not None:
            self.leave(leaving)
        if full:
            return caller
        self._inside.add(caller)
        self.expect(caller)
        return leaving

    def leave(self, caller: Caller) -> None:
        """Remove `caller`, if it is still there."""
        self._inside.discard(caller)
        self._forget(caller)

    def expect(self, caller: Caller) -> None:
        """Record that a request from `caller` is due: it has connected or begun to send one."""
        self._move(caller, self._due)

    def mark_busy(self, caller: Caller) -> None:
        """Record that `caller` waits for an answer, so that it is not closed for another."""
        self._forget(caller)

    def mark_idle(self, caller: Caller) -> None:
        """Record that `caller` has its answer."""
        self._move(caller, self._idle)

    def _move(self, caller: Caller, waiting: dict[Caller, float]) -> None:
        self._forget(caller)
        if caller in self._inside:
            waiting[caller] = self._clock()

    def _forget(self, caller: Caller) -> None:
        self._due.pop(caller, None)
        self._idle.pop(caller, None)

    def _is_full(self, address: str | None) -> bool:
        return len(self._inside) >= self._most or self._has_its_share(address)

    def _has_its_share(self, address: str | None) -> bool:
        if is_of_this_host(address):
            return False
        return sum(each.address == address for each in self._inside) >= self._most // 2

    def _who_leaves(self, address: str | None) -> Caller | None:
        if self._has_its_share(address):
            return next((each for each in self._in_order() if each.address == address), None)
        return next(self._in_order(), None) if len(self._inside) >= self._most else None

    def _in_order(self) -> Iterator[Caller]:
        late = self._clock() - _PROMPT_SECONDS
        yield from (each for each, since in self._due.items() if since < late)
        yield from self._idle
        yield from self._due


def is_of_this_host(address: str | None) -> bool:
    """Whether `address` is loopback, or None for a Unix socket."""
    return address is None or ipaddress.ip_address(address.partition("%")[0]).is_loopback
