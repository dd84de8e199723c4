"""Who is at the other end of a connection, according to the kernel."""

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
_MAX_OPTION_BYTES = 1_024  # the largest buffer that `socket.getsockopt` allows: 256 groups
_MAX_GROUPS = 65_536  # NGROUPS_MAX


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, its user, its group and all of its groups.

    All its connections are one peer, and take turns as one. If the kernel cannot identify the
    process (it is in a container with its own process ids), `pid` is 0.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()

    def __hash__(self) -> int:
        return hash((self.pid, self.uid))  # peers that differ only in the rest are rare

    def __str__(self) -> str:
        return f"pid {self.pid} (uid {self.uid})"

    def named(self) -> dict[str, int]:
        """Return the fields that identify the peer in events."""
        return {"peer_pid": self.pid, "peer_uid": self.uid, "peer_gid": self.gid}

    @property
    def is_operator(self) -> bool:
        """Whether its user could end the daemon anyway: root, or the daemon's own user."""
        return self.uid in (0, os.geteuid())

    @classmethod
    def of(cls, sock: socket.socket) -> "Peer":
        """Return the peer of a connected Unix socket."""
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        return cls(pid, uid, gid, _groups(sock) | {gid})


def has_left(sock: socket.socket) -> bool:
    """Whether either end is closed. Reads nothing."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP is always reported
    return bool(poll.poll(0))


def _groups(sock: socket.socket) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION_BYTES)
    except OSError as error:
        # Otherwise it is an older kernel, which reports only the first group.
        raw = _many_groups(sock) if error.errno == errno.ERANGE else b""
    return frozenset(gid for (gid,) in _GID.iter_unpack(raw))


def _many_groups(sock: socket.socket) -> bytes:
    """Return the groups if there are more than `socket.getsockopt` has room for."""
    buffer = ctypes.create_string_buffer(_MAX_GROUPS * _GID.size)
    size = ctypes.c_uint32(len(buffer))
    getsockopt = ctypes.CDLL(None).getsockopt
    args = sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)
    return buffer.raw[: size.value] if getsockopt(*args) == 0 else b""
