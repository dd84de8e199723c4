"""Which connections there are, and which one goes where there are too many. No I/O.

On this host all callers have the same address, so what tells a caller who works from one who
only holds connections is whether a request is under way. Where there are too many, a connection
without one makes place: first one whose request has been due for a while, then one that is idle.
"""

import ipaddress
import time
from collections.abc import Callable, Iterator
from typing import Protocol

_PROMPT_SECONDS = 1.0
"""How long a request may be due before its connection is the first to go."""


class Caller(Protocol):
    """A connection, as far as the door is concerned."""

    @property
    def address(self) -> str | None:
        """Whence it comes; None over a Unix socket."""


class Door:
    """At most `most` connections, and of another host half as many."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._inside: set[Caller] = set()
        # Since when; the longest first.
        self._due: dict[Caller, float] = {}
        self._idle: dict[Caller, float] = {}

    def enter(self, caller: Caller) -> Caller | None:
        """Let `caller` in; return who has to go for that: another, itself, or nobody."""
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
        """Forget `caller`; it may have been forgotten before."""
        self._inside.discard(caller)
        self._forget(caller)

    def expect(self, caller: Caller) -> None:
        """Note that `caller` has begun a request, or has come to do so."""
        self._move(caller, self._due)

    def mark_busy(self, caller: Caller) -> None:
        """Note that `caller` waits for an answer: it cannot be made to go."""
        self._forget(caller)

    def mark_idle(self, caller: Caller) -> None:
        """Note that `caller` has its answer."""
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
    """Whether a connection from `address` comes from this host, as far as that tells."""
    return address is None or ipaddress.ip_address(address.partition("%")[0]).is_loopback
