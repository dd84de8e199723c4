"""Which users' daemons a client trusts: root's, its own user's, and those of one named user.

A socket's path does not reveal who listens there: in a directory that others may write to, anybody
can. Two facts do, and a user who is trusted for either is enough:

- who listens, by `SO_PEERCRED` (unix(7)): the user who called listen(2) last;
- who owns the socket's file: the user who bound it. Under systemd that is root, whatever the user
  of the daemon to which the socket is passed, and which may call listen(2) itself.

In a user namespace, all users outside of it look like one, number 65534. None of them is taken for
the client's own user there, even if that looks the same.
"""

import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client_lib.wire.errors import UntrustedDaemon

VARIABLE = "SIDECAR_DAEMON_USER"

_ROOT = 0
_OUTSIDE = 65_534
_ALL_USERS = [b"0", b"0", b"4294967295"]  # user_namespaces(7): every user is mapped to itself
_UCRED = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust in root, the process's effective user and `named`, a name or number ("" for nobody)."""

    named: str = ""

    @classmethod
    def of(cls, user: str | int | None, environ: Mapping[str, str] = os.environ) -> "Trust":
        """Return trust in `user`, or in `$SIDECAR_DAEMON_USER` if that is None."""
        return cls(environ.get(VARIABLE, "") if user is None else str(user))

    def accepts(self, uid: int) -> bool:
        """Whether texts may be sent to a daemon of the user `uid`."""
        return uid == _ROOT or is_own(uid) or uid == self._named_uid()

    def refusal(self, path: str, uid: int) -> UntrustedDaemon:
        """Return the error for a daemon of `uid` at `path`."""
        if uid == _OUTSIDE and not _sees_all_users():
            who = "a user outside this user namespace"
            advice = f"map that user into it; {VARIABLE}={uid} would trust every user outside it"
        else:
            who, advice = user(uid), f"set {VARIABLE}={_name(uid) or uid} if you trust that user"
        return UntrustedDaemon(
            f"the daemon at {path} is run by {who}, not by {self._trusted()}: {advice}"
        )

    def _trusted(self) -> str:
        if not self.named:
            return "root or you"
        unknown = "" if self._named_uid() is not None else " (unknown to this host)"
        return f"root, you or {self.named!r}{unknown}"

    def _named_uid(self) -> int | None:
        if self.named.isdecimal():
            return int(self.named)
        try:
            return pwd.getpwnam(self.named).pw_uid
        except (KeyError, ValueError):  # ValueError: it cannot be a name
            return None


def listener_of(sock: socket.socket) -> int:
    """Return the uid of the listener at the other end of a connected Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    return int(uid)


def user(uid: int) -> str:
    """Return `uid` as messages show it, with its name if this host knows one."""
    name = _name(uid)
    return f"user {uid} ({name})" if name else f"user {uid}"


def is_own(uid: int) -> bool:
    """Whether `uid` is this process's effective user, rather than one that only looks like it."""
    return uid == os.geteuid() and (uid != _OUTSIDE or _sees_all_users())


def _sees_all_users() -> bool:
    try:
        return Path("/proc/self/uid_map").read_bytes().split() == _ALL_USERS
    except OSError:
        return False


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
