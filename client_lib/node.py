"""A daemon that processes of one host start together, where nobody else runs one for them.

The first that needs it starts it, and it ends after the last, however that one ends: each holds
a shared lock on FOLDER/users, which the kernel lets go of with the process. A keeper, which is
nobody's child, has the daemon as its own, and ends it once no such lock is left.

FOLDER is this user's alone, wherever it lies, and so is what is in it: another user's is refused.
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
_LOOK_SECONDS = 0.5  # from look to look, whether somebody uses the daemon
_START_LOOK_SECONDS = 0.05  # whether one that was just started answers: somebody waits for it
_ANSWER_SECONDS = 5.0  # of one that listens; where none does, that is known at once
_LAST_BYTES = 2_000  # that are told of what a daemon said that did not start
_KEEP = "--keep"


class NodeDaemon:
    """The daemon of those that name the same `folder`; it listens at `socket`.

    It is there from the end of `__init__` to `close`, or to the end of the process. `flags` are
    those of `sidecar serve`; the first user's count. Raises `ConnectionLost` where the daemon
    does not start: what it said stands in the message, and in the folder's `log`. Raises
    `UntrustedFolder` where the folder, or what is in it, is another user's.
    """

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        _make_parents(folder)
        self.socket = _socket(folder)
        with OwnFolder.hold(folder) as own:
            # Waits while a keeper is about to end its daemon.
            self._using = _lock(own, "users", fcntl.LOCK_SH)
            try:
                with os.fdopen(_lock(own, "starting", fcntl.LOCK_EX), "rb"):
                    if not answers(self.socket):
                        _start(folder, flags)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Use it no longer."""
        os.close(self._using)

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
    """Whether a daemon listens at `socket`, and says so. Raises `UntrustedDaemon`."""
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
    """Return a file that is locked until it is closed."""
    file = folder.open(name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, kind)
    except BaseException:
        os.close(file)
        raise
    return file


def _start(folder: Path, flags: Sequence[str]) -> None:
    # By way of a process that ends at once: what ends this one's children with it, as a cluster's
    # scheduler may, does not find the keeper.
    done = subprocess.run(  # noqa: S603 - our own module, by this interpreter
        [sys.executable, "-m", "client_lib.node", os.fspath(folder), *flags],
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ConnectionLost(f"the daemon in {folder} did not start: {done.stderr.strip()}")


def _launch_keeper(folder: Path, flags: Sequence[str]) -> int:
    """Start the keeper, and return once its daemon answers, or has ended."""
    with OwnFolder.hold(folder) as own, _log(own) as said:
        keeper = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
            [sys.executable, "-m", "client_lib.node", _KEEP, os.fspath(folder), *flags],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    while not answers(_socket(folder)):
        try:
            keeper.wait(_START_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        print(_last_words(folder), file=sys.stderr)  # noqa: T201 - a process's way to say it
        return 1
    return 0


def _log(folder: OwnFolder) -> BinaryIO:
    return os.fdopen(folder.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _last_words(folder: Path) -> str:
    with OwnFolder.hold(folder) as own, os.fdopen(own.open("log", os.O_RDONLY), "rb") as log:
        return log.read()[-_LAST_BYTES:].decode(errors="replace")


def _keep(folder: Path, flags: Sequence[str]) -> int:
    """Run the daemon until nobody uses it; one that is killed meanwhile is started again."""
    with OwnFolder.hold(folder) as own:
        users = own.open("users", os.O_RDWR)
    while True:
        with _daemon(folder, flags) as daemon:
            while daemon.returncode is None:
                if _is_last(users):
                    daemon.terminate()
                    return daemon.wait()
                _wait(daemon)
        if daemon.returncode >= 0:  # it would end so again
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
    # The lock is kept until this process ends, after its daemon: who comes meanwhile waits for it.
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


def _main(words: Sequence[str]) -> int:
    if words[0] == _KEEP:
        return _keep(Path(words[1]), words[2:])
    return _launch_keeper(Path(words[0]), words[1:])


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
