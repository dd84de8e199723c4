"""Who is at the other end of a connection, by the kernel's word."""

import ctypes
import errno
import os
import select
import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")  # struct ucred, unix(7)
_GID = struct.Struct("I")
_SO_PEERGROUPS = 59  # <asm-generic/socket.h>, Linux 4.13; Python has no name for it
_PYTHONS_MOST = 1_024  # bytes that `socket.getsockopt` gives room for: 256 groups
_MAX_GROUPS = 65_536  # NGROUPS_MAX


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, its user, its group and all of its groups.

    All its connections are one peer, and take turns as one. Where the kernel cannot name the
    process (it is in a container with other process ids) `pid` is 0.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def __hash__(self) -> int:
        return hash((self.pid, self.uid))  # who differs in the rest alone is rare

    def __str__(self) -> str:
        return f"pid {self.pid} (uid {self.uid})"

    def named(self) -> dict[str, int]:
        """Return who it is, for an event."""
        return {"peer_pid": self.pid, "peer_uid": self.uid, "peer_gid": self.gid}

    @property
    def is_operator(self) -> bool:
        """Whether its user could as well end the daemon: root's, or the daemon's own."""
        return self.uid in (0, os.geteuid())

    @classmethod
    def of(cls, sock: socket.socket) -> "Peer":
        """Return the peer of a connected Unix socket."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        return cls(pid, uid, gid, _groups(sock) | {gid})


def has_left(sock: socket.socket) -> bool:
    """Whether either end is closed; nothing need be read for it."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP is told unasked
    return bool(poll.poll(0))


def _groups(sock: socket.socket) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PYTHONS_MOST)
    except OSError as error:
        # Otherwise it is an older kernel, which tells the first group alone.
        raw = _many_groups(sock) if error.errno == errno.ERANGE else b""
    return frozenset(gid for (gid,) in _GID.iter_unpack(raw))


def _many_groups(sock: socket.socket) -> bytes:
    """Return what `getsockopt` says where that is more than Python makes room for."""
    buffer = ctypes.create_string_buffer(_MAX_GROUPS * _GID.size)
    size = ctypes.c_uint32(len(buffer))
    getsockopt = ctypes.CDLL(None).getsockopt
    args = sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)
    return buffer.raw[: size.value] if getsockopt(*args) == 0 else b""
