"""A daemon that has to start again beside a user who is in its way."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.attack.party import Party
from bench.attack.users import ATTACKERS
from client_lib import Client, SidecarError

_START_SECONDS = 30.0
_HEAD_START = 1.0  # of the attackers
_ANYBODYS = 0o1777  # as /tmp is


@dataclass(frozen=True, slots=True)
class Started:
    """How a start beside an attack went: in how many seconds, or why it did not."""

    name: str
    seconds: float
    failure: str


def restarted(name: str, folder: Path, seed: int, *flags: str) -> Started:
    """Kill a daemon that listens in `folder`, and start it again beside the attack `name`."""
    folder.mkdir()
    folder.chmod(_ANYBODYS)
    socket = folder / "sidecar.sock"
    with _daemon(socket, *flags) as process:
        _wait_for(process, socket)
        process.kill()
    with Party(name, socket, seed, ATTACKERS[:1]) as party:
        party.begin()
        time.sleep(_HEAD_START)
        begun = time.monotonic()
        with _daemon(socket, *flags) as process:
            failure = _wait_for(process, socket)
            return Started(name, time.monotonic() - begun, failure)


@contextmanager
def _daemon(socket: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "sidecar", "serve", "--socket", str(socket), *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for(process: subprocess.Popen[bytes], socket: Path) -> str:
    """Return why the daemon does not answer, or "" as soon as it does."""
    deadline = time.monotonic() + _START_SECONDS
    with Client(socket, timeout=0.2) as client:
        while time.monotonic() < deadline:
            if (code := process.poll()) is not None:
                return f"ended with {code}"
            try:
                client.ping()
            except SidecarError:
                continue
            return ""
    return f"no answer in {_START_SECONDS:g} s"
