"""What the gateway needs to be told, as plain values."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which daemon to ask, and what to take from callers.

    `timeout` bounds a request in seconds, from its headers to the daemon's answer;
    `max_body_bytes` its body; `max_in_flight` how many are being read or answered at a time.
    Where there are `keys`, a caller has to have one of them.
    """

    daemon: Path
    timeout: float = 30.0
    max_body_bytes: int = 16 * 2**20
    # With 256 in flight the daemon reads no more from a connection, and would not see a cancel.
    max_in_flight: int = 192
    keys: tuple[bytes, ...] = ()

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are being read or answered, at most."""
        return 16 * self.max_body_bytes


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, its address for people, and how its file, if any, is taken away."""

    socket: socket.socket
    address: str
    unlink: Callable[[], None] = lambda: None
