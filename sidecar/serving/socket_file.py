"""The socket's file: who may sit there, and how it appears and disappears.

It is bound under a temporary name, with its mode set, and renamed into place: there is no
moment at which the path is missing, refuses, or has the wrong permissions.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

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
        self._inode = path.stat().st_ino

    @classmethod
    def bind(cls, path: Path) -> "SocketFile":
        """Listen at `path`; parents that are missing are made, a stale socket is replaced.

        Raises `SocketUnavailable` where another daemon listens, or something else lies there.
        """
        try:
            _make_directory(path.parent)
            with _only_one_at_a_time(path):
                refuse_if_taken(path)
                return cls(path, _listen(path))
        except OSError as error:
            raise SocketUnavailable(f"{path}: {error.strerror or error}") from error

    def unlink(self) -> None:
        """Remove the file, if it is still this socket's and not a later daemon's."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


def refuse_if_taken(path: Path) -> None:
    """Raise `SocketUnavailable` if `path` cannot become ours: it is alive, or no socket."""
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


def _listen(path: Path) -> socket.socket:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(temporary))
        temporary.chmod(_MODE)
        sock.listen(_BACKLOG)
        temporary.rename(path)
    except BaseException:
        sock.close()
        temporary.unlink(missing_ok=True)
        raise
    return sock


@contextmanager
def _only_one_at_a_time(path: Path) -> Iterator[None]:
    """Keep two daemons that start at once from both finding a stale socket."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SocketUnavailable(f"another daemon is just starting at {path}") from None
    finally:
        os.close(directory)
