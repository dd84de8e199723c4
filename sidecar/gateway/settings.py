"""The gateway's configuration as plain values."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 512
"""The listen backlog; this many connections may be accepted at once before any is counted."""

SPARE_DESCRIPTORS = 64
"""Descriptors for everything but callers: connections to the daemon, events, Python itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The daemon's socket and the limits on callers.

    `timeout`: seconds from a request's header to the daemon's answer.
    `max_body_bytes`: size of a request body.
    `max_in_flight`: requests sent to the daemon at a time.
    `max_connections`: open connections.
    `keys`: if not empty, callers must present one of them.
    """

    daemon: Path
    timeout: float = 30.0
    max_body_bytes: int = 16 * 2**20
    # At 256 in flight the daemon stops reading from a connection and would miss a cancel.
    max_in_flight: int = 192
    max_connections: int = 512
    keys: tuple[bytes, ...] = ()

    @property
    def header_seconds(self) -> float:
        """Seconds in which a request's header must arrive."""
        return min(10.0, self.timeout)

    @property
    def descriptors(self) -> int:
        """File descriptors that the process needs."""
        return self.max_connections + BACKLOG + SPARE_DESCRIPTORS

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies being read or answered; exceeded by one body at most."""
        return 16 * self.max_body_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket and how it may be reached.

    `address`: for messages.
    `names`: host names allowed besides this host's own; None allows any, on a Unix socket, which
        browsers cannot reach.
    `any_address`: whether other hosts can reach it, so that any IP address is a valid host name.
    `is_open`: whether every user of this host has access without this having been asked for.
    `unlink`: remove the socket file, if there is one.
    """

    socket: socket.socket
    address: str
    names: tuple[str, ...] | None = None
    any_address: bool = False
    is_open: bool = False
    unlink: Callable[[], None] = lambda: None
