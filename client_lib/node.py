"""A daemon that the processes of a host start on demand and share.

The first process that needs it starts it, and it ends after the last one, however that one ends:
each holds a shared lock on FOLDER/users, which the kernel releases with the process. A keeper,
which is nobody's child, has the daemon as its own child, and ends it once no such lock is left.

FOLDER belongs to this user alone, wherever it lies, and so does everything in it: anything of
another user is refused.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from client_lib.own_folder import OwnFolder
from client_lib.sync import Client
from client_lib.wire.errors import ConnectionLost, SidecarError, UntrustedDaemon

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOOK_SECONDS = 0.5  # between checks whether anybody uses the daemon
_START_LOOK_SECONDS = 0.05  # between checks whether a new daemon answers: a caller waits for it
_ANSWER_SECONDS = 5.0  # timeout of a daemon that listens; without one, a check fails at once
_LAST_BYTES = 2_000  # how much output of a daemon that did not start is reported
_KEEP = "--keep"


class NodeDaemon:
    """The daemon shared by all processes that name the same `folder`.

    It is available from construction to `close`, or to the end of the process. It is a context
    manager that closes itself.

    Args:
        folder: A folder of this user's own, for the socket, the locks and the log; created if it
            is missing.
        flags: Flags of `sidecar serve`. They have no effect if the daemon is running already.

    Attributes:
        socket: The path of the daemon's Unix socket.

    Raises:
        ConnectionLost: The daemon did not start. The message has the end of its output, and
            `log` in the folder all of it.
        UntrustedFolder: The folder, or something in it, belongs to another user.
        UntrustedDaemon: Another user's daemon listens at the socket.
    """

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        _make_parents(folder)
        self.socket = _socket(folder)
        with OwnFolder.hold(folder) as own:
            # Blocks while a keeper is ending its daemon.
            self._using: int | None = _lock(own, "users", fcntl.LOCK_SH)
            try:
                with os.fdopen(_lock(own, "starting", fcntl.LOCK_EX), "rb"):
                    if not answers(self.socket):
                        _start(folder, flags)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Stop using the daemon, which ends if nobody else uses it. Closing again does nothing."""
        using, self._using = self._using, None
        if using is not None:
            os.close(using)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def answers(socket: Path) -> bool:
    """Check whether a daemon answers at `socket`.

    Args:
        socket: The path of a Unix socket.

    Returns:
        Whether it answered within five seconds.

    Raises:
        UntrustedDaemon: Another user's daemon listens there.
    """
    try:
        with Client(socket, timeout=_ANSWER_SECONDS, retries=False) as client:
            client.ping()
    except UntrustedDaemon:
        raise
    except SidecarError:
        return False
    return True


def _socket(folder: Path) -> Path:
    return folder / "sidecar.sock"


def _make_parents(folder: Path) -> None:
    missing = [parent for parent in folder.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def _lock(folder: OwnFolder, name: str, kind: int) -> int:
    """Return a file descriptor that holds the lock until it is closed."""
    file = folder.open(name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, kind)
    except BaseException:
        os.close(file)
        raise
    return file


def _start(folder: Path, flags: Sequence[str]) -> None:
    # Start it from a process that exits at once: whatever ends this process's children with it, as
    # a cluster's scheduler may, does not find the keeper.
    done = subprocess.run(  # noqa: S603 - our own module, by this interpreter
        [sys.executable, "-m", "client_lib.node", os.fspath(folder), *flags],
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ConnectionLost(f"the daemon in {folder} did not start: {done.stderr.strip()}")


def _launch_keeper(folder: Path, flags: Sequence[str]) -> int:
    """Start the keeper; return once its daemon answers, or has ended."""
    with OwnFolder.hold(folder) as own, _log(own) as log:
        keeper = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
            [sys.executable, "-m", "client_lib.node", _KEEP, os.fspath(folder), *flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while not answers(_socket(folder)):
        try:
            keeper.wait(_START_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        print(_log_tail(folder), file=sys.stderr)  # noqa: T201 - a process's way to say it
        return 1
    return 0


def _log(folder: OwnFolder) -> BinaryIO:
    return os.fdopen(folder.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _log_tail(folder: Path) -> str:
    with OwnFolder.hold(folder) as own, os.fdopen(own.open("log", os.O_RDONLY), "rb") as log:
        return log.read()[-_LAST_BYTES:].decode(errors="replace")


def _keep(folder: Path, flags: Sequence[str]) -> int:
    """Run the daemon until nobody uses it; restart it if it is killed meanwhile."""
    with OwnFolder.hold(folder) as own:
        users = own.open("users", os.O_RDWR)
    while True:
        with _daemon(folder, flags) as daemon:
            while daemon.returncode is None:
                if _is_last(users):
                    daemon.terminate()
                    return daemon.wait()
                _wait(daemon)
        if daemon.returncode >= 0:  # it would exit the same way again
            return daemon.returncode


@contextmanager
def _daemon(folder: Path, flags: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "sidecar", "serve", "--socket", os.fspath(_socket(folder))]
    with subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
        [*command, *flags],
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - there are no threads
    ) as daemon:
        yield daemon


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_last(users: int) -> bool:
    # The lock is kept until this process ends, after its daemon: newcomers wait for that.
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(daemon: subprocess.Popen[bytes]) -> None:
    try:
        daemon.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _main(arguments: Sequence[str]) -> int:
    if arguments[0] == _KEEP:
        return _keep(Path(arguments[1]), arguments[2:])
    return _launch_keeper(Path(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
