"""What the gateway needs to be told, as plain values."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 512
"""Connections that wait to be taken; so many may be taken at once before any is counted."""

SPARE_DESCRIPTORS = 64
"""For all but the callers' connections: the daemon, events, Python's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which daemon to ask, and what to take from callers.

    `timeout` bounds a request in seconds, from its headers to the daemon's answer;
    `max_body_bytes` its body; `max_in_flight` how many the daemon is asked at a time;
    `max_connections` how many there are. Where there are `keys`, a caller has to have one of them.
    """

    daemon: Path
    timeout: float = 30.0
    max_body_bytes: int = 16 * 2**20
    # With 256 in flight the daemon reads no more from a connection, and would not see a cancel.
    max_in_flight: int = 192
    max_connections: int = 512
    keys: tuple[bytes, ...] = ()

    @property
    def header_seconds(self) -> float:
        """How long the header of a request may take."""
        return min(10.0, self.timeout)

    @property
    def descriptors(self) -> int:
        """How many files the process may have open at a time."""
        return self.max_connections + BACKLOG + SPARE_DESCRIPTORS

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are being read or answered; one body may exceed them."""
        return 16 * self.max_body_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket, its address for people, and how its file, if any, is taken away.

    `names` are those that callers may call it by, beside this host's own; None where any will do,
    since no browser comes that way. `any_address` tells whether other hosts may reach it,
    `is_open` whether every user of this host may ask, and nobody said that they should.
    """

    socket: socket.socket
    address: str
    names: tuple[str, ...] | None = None
    any_address: bool = False
    is_open: bool = False
    unlink: Callable[[], None] = lambda: None
