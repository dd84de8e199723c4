"""The service manager's part: it owns the listening socket, and daemons come and go on it."""

import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from client_lib import Client

_BACKLOG = 1_024  # as the units have
_START_SECONDS, _STOP_SECONDS = 120.0, 60.0
# LISTEN_PID is the daemon's own: only the process that becomes it knows that beforehand.
_PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
# Nobody asks for these; each is a fault of the daemon's.
_FAULTS = ("peer.failed", "loop.failed", "worker.crashed")


class Manager:
    """Listens on `socket` in `folder` while it is entered; one daemon at a time accepts there."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.socket = folder / "sidecar.sock"
        self._events = folder / "events.jsonl"
        self._flags = flags
        self._listener = socket.socket(socket.AF_UNIX)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._listener.bind(str(self.socket))
        self._listener.listen(_BACKLOG)
        self.start()
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self.ended is None:
            self.kill()
        self._listener.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The daemon's exit code, if it has ended."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Start a daemon and return at once."""
        descriptor = self._listener.fileno()
        shim = [sys.executable, "-I", "-S", "-c", _PASS_ON, str(descriptor)]
        serve = ["-m", "sidecar", "serve", "--socket", str(self.socket), *self._flags]
        with self._events.open("ab") as events:
            self._process = subprocess.Popen([*shim, *serve], stdout=events, pass_fds=(descriptor,))

    def wait(self) -> None:
        """Wait until the daemon answers."""
        with Client(self.socket, timeout=_START_SECONDS) as client:
            client.ping()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Let the daemon finish, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    @property
    def written(self) -> int:
        """How many bytes of events there are by now."""
        return self._events.stat().st_size

    def events(self, since: int = 0) -> Iterator[Mapping[str, Any]]:
        """Yield the events that were written after the first `since` bytes."""
        with self._events.open("rb") as events:
            events.seek(since)
            for line in events:
                # The last line of a daemon that was killed may be half a line.
                if line.endswith(b"}\n"):
                    yield json.loads(line)

    def faults(self, since: int = 0) -> Counter[str]:
        """Return what the daemons say went wrong inside them, by event."""
        names = Counter(str(event["event"]) for event in self.events(since))
        return Counter({name: names[name] for name in _FAULTS if names[name]})
