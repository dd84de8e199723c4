"""Who is at the other end of a connection, by the kernel's word."""

import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")  # struct ucred, unix(7)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, its user and its group.

    All its connections are one peer, and take turns as one. Where the kernel cannot name the
    process (it is in a container with other process ids) `pid` is 0.
    """

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"pid {self.pid} (uid {self.uid})"

    @classmethod
    def of(cls, sock: socket.socket) -> "Peer":
        """Return the peer of a connected Unix socket."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return cls(*_UCRED.unpack(raw))
