"""The socket's file: who may sit there, and how it appears and disappears.

It is bound under a temporary name, with its mode set, and renamed into place: there is no
moment at which the path is missing, refuses, or has the wrong permissions.
"""

import errno
import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from client_lib.address import too_long

_MODE = 0o660
_DIRECTORY_MODE = 0o755
_BACKLOG = 1_024


class SocketUnavailable(Exception):
    """The daemon cannot listen at the path; the message names it and says why."""


class Listener(Protocol):
    """A listening Unix socket, and whoever may take its file away."""

    path: Path
    socket: socket.socket

    def unlink(self) -> None:
        """Let no new client find the socket, if that is for this process to decide."""


class PassedSocket:
    """A socket that the service manager listens with, too.

    Its file stays: who connects between two daemons waits in the manager's queue, and nobody
    is refused.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.path = Path(sock.getsockname())

    def unlink(self) -> None:
        """Leave the file, which is the manager's."""


class SocketFile:
    """A listening Unix socket that owns its file."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self.socket = sock
        self._inode = path.lstat().st_ino

    @classmethod
    def bind(cls, path: Path) -> "SocketFile":
        """Listen at `path`; parents that are missing are made, a stale socket is replaced.

        Raises `SocketUnavailable` where another daemon listens, or something else lies there,
        or no socket can.
        """
        with _told(path):
            _refuse_if_too_long(path)
            _make_directory(path.parent)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with _only_one_at_a_time(path, directory):
                    _refuse_if_taken(path)
                    return cls(path, _listen(path, directory))
            finally:
                os.close(directory)

    def unlink(self) -> None:
        """Remove the file, if it is still this socket's and not a later daemon's."""
        with suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def refuse_if_unusable(path: Path) -> None:
    """Raise `SocketUnavailable` if `path` cannot become ours; nothing is changed there.

    It is alive, or no socket, or too long, or in a directory that cannot be written or made.
    """
    with _told(path):
        _refuse_if_too_long(path)
        _refuse_if_taken(path)
        nearest = next(each for each in path.absolute().parents if each.exists())
        if not nearest.is_dir():
            raise SocketUnavailable(f"{path}: {nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
            who = f"the user {os.geteuid()} may not write"
            raise SocketUnavailable(f"{path}: {who} {nearest}; choose another with SIDECAR_SOCKET")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise `SocketUnavailable` where the system refuses something at `path`."""
    try:
        yield
    except OSError as error:
        raise SocketUnavailable(f"{path}: {error.strerror or error}") from error


def _refuse_if_too_long(path: Path) -> None:
    if wrong := too_long(path):
        raise SocketUnavailable(f"{path}: {wrong}; choose a shorter one")


def _refuse_if_taken(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailable(f"{path} exists and is not a socket; move it or choose another")
    if _answers(path):
        raise SocketUnavailable(f"another daemon is listening at {path}")


def _make_directory(directory: Path) -> None:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        parent.chmod(_DIRECTORY_MODE)  # whatever the umask


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its backlog is full, so it has one
            return True
    return True


def _listen(path: Path, directory: int) -> socket.socket:
    """Return a socket that listens at `path`, in the open `directory`."""
    # A name that nobody can have put something at beforehand.
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    address = str(temporary)
    if too_long(temporary):  # where `path` itself just fits
        temporary = path.with_name(f".{secrets.token_hex(8)}.sock")
        address = f"/proc/self/fd/{directory}/{temporary.name}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    try:
        temporary.chmod(_MODE)
        sock.listen(_BACKLOG)
        temporary.rename(path)
    except BaseException:
        sock.close()
        temporary.unlink(missing_ok=True)
        raise
    return sock


@contextmanager
def _only_one_at_a_time(path: Path, directory: int) -> Iterator[None]:
    """Keep two daemons that start at once from both finding a stale socket.

    By a file of our own that nobody else can open: a lock on the directory itself could be had by
    any user, who would keep the daemon from starting.
    """
    name = f".{path.name}.lock"
    lock = _lock(path, name, directory)
    try:
        yield
    finally:
        # While it is locked: whoever opens it from now on finds none, and makes another.
        os.unlink(name, dir_fd=directory)
        os.close(lock)


def _lock(path: Path, name: str, directory: int) -> int:
    """Return the lock's file, locked, and in its place: who had it before may have removed it."""
    while True:
        lock = _open_lock(path, name, directory)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, name, directory):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise SocketUnavailable(f"another daemon is just starting at {path}") from None
        os.close(lock)


def _is_at(file: int, name: str, directory: int) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(file))


def _open_lock(path: Path, name: str, directory: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(name, flags, 0o600, dir_fd=directory)
        if os.fstat(lock).st_uid == os.geteuid():
            return lock
        os.close(lock)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.EACCES, errno.EISDIR, errno.ENXIO}:
            raise
    raise SocketUnavailable(
        f"{path}: something that is not this user's lies at {path.with_name(name)}, where the "
        "daemon keeps its lock: remove it, or choose a directory that others cannot write"
    )
