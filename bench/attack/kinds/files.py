"""What another user can do in the socket's directory while a daemon is about to listen there."""

import fcntl
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.attack.kinds.attack import Attack
from bench.attack.target import Target

_PIDS = 4_000  # as far ahead as the next daemon's may be


def _lock(target: Target) -> None:
    """Hold a shared lock on the directory, which takes no more than reading it."""
    directory = os.open(Path(target.path).parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(directory, fcntl.LOCK_SH)
    target.did()
    signal.pause()


def _plant(target: Target) -> None:
    """Take the names under which the daemon may bind before it renames; needs a sticky /tmp."""
    path = Path(target.path)
    for pid in range(os.getpid(), os.getpid() + _PIDS):
        with suppress(FileExistsError):
            path.with_name(f".{pid}.{path.name}").symlink_to("/nowhere")
            target.did()
    signal.pause()


ATTACKS: Mapping[str, Attack] = {
    "a lock on the socket's directory": Attack("locks", _lock, processes=1),
    "files in the way of the socket's": Attack("files", _plant, processes=1),
}
