"""The listening socket and its file: check that the path is free, create it, remove it.

The socket is bound under a temporary name, given its mode, and renamed into place, so that its
path is never missing, refusing connections, or open to the wrong users in between.
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
    """The daemon cannot listen at a path; the message names the path and the reason."""


class Listener(Protocol):
    """A listening Unix socket, and how to remove its file."""

    path: Path
    socket: socket.socket

    def unlink(self) -> None:
        """Remove the socket's file, if it is this process's own."""


class PassedSocket:
    """A listening socket passed by the service manager, which keeps it open too.

    Its file stays: clients that connect between two daemons wait in the socket's backlog instead
    of being refused.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.path = Path(sock.getsockname())

    def unlink(self) -> None:
        """Do nothing: the file is the manager's."""


class SocketFile:
    """A listening Unix socket that owns its file."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self.socket = sock
        self._inode = path.lstat().st_ino

    @classmethod
    def bind(cls, path: Path) -> "SocketFile":
        """Listen at `path`; create missing parents, and replace a stale socket.

        Raises `SocketUnavailable` if another daemon listens there, if something other than a
        socket is there, or if no socket can be created.
        """
        with _naming_path(path):
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
        """Remove the file, unless a later daemon has replaced it."""
        with suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def refuse_if_unusable(path: Path) -> None:
    """Raise `SocketUnavailable` if the daemon could not listen at `path`; change nothing.

    It cannot if another daemon listens there, something other than a socket is there, the path is
    too long, or its directory cannot be written or created.
    """
    with _naming_path(path):
        _refuse_if_too_long(path)
        _refuse_if_taken(path)
        nearest = next(each for each in path.absolute().parents if each.exists())
        if not nearest.is_dir():
            raise SocketUnavailable(f"{path}: {nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
            reason = f"user {os.geteuid()} may not write to {nearest}"
            raise SocketUnavailable(f"{path}: {reason}; choose another path with SIDECAR_SOCKET")


@contextmanager
def _naming_path(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `SocketUnavailable` that names `path`."""
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
        except BlockingIOError:  # the backlog is full, so somebody listens
            return True
    return True


def _listen(path: Path, directory: int) -> socket.socket:
    """Return a socket that listens at `path`; `directory` is a descriptor of its parent."""
    # A random name, at which nobody can have placed anything beforehand.
    temporary = path.with_name(f".{secrets.token_hex(8)}.{path.name}")
    address = str(temporary)
    if too_long(temporary):  # `path` itself only just fits
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
    """Lock out other daemons that start now, which might also find the socket stale.

    The lock is on a file that no other user can open: any user could hold a lock on the directory
    itself, and keep the daemon from starting.
    """
    name = f".{path.name}.lock"
    lock = _lock(path, name, directory)
    try:
        yield
    finally:
        # Unlink while locked, so that the next daemon to open the lock file creates a new one.
        os.unlink(name, dir_fd=directory)
        os.close(lock)


def _lock(path: Path, name: str, directory: int) -> int:
    """Return the locked lock file; try again if its previous owner has removed it meanwhile."""
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
        f"{path}: the lock file {path.with_name(name)} is not a regular file owned by this user: "
        "remove it, or choose a directory that others cannot write to"
    )
