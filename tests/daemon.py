"""A real `sidecar serve` in a subprocess."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import psutil

from client_lib import Client, ConnectionLost

_START_SECONDS = 300.0
_STOP_SECONDS = 30.0
_PATIENCE = 120.0
_LOOK_SECONDS = 0.02  # polling faster would take processor time from the daemon


class Daemon:
    """A daemon that answers when the block begins, and is stopped when it ends."""

    def __init__(self, folder: Path, *flags: str, socket: Path | None = None) -> None:
        self.socket = socket or folder / "sidecar.sock"
        self._log = folder / "events.jsonl"
        self._command = [
            sys.executable, "-m", "sidecar", "serve", "--socket", str(self.socket),
            "--cache-dir", str(folder / "cache"), *flags,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def launch(self) -> None:
        """Start the process without waiting for it to answer."""
        # The tests assume the quantization of a CPU, even on a host with a CUDA device.
        environ = {"SIDECAR_DEVICE": "cpu", **os.environ}
        with self._log.open("ab") as events:
            self.process = subprocess.Popen(self._command, stdout=events, env=environ)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, "the daemon has ended"
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(_LOOK_SECONDS)

    def _answers(self) -> bool:
        with Client(self.socket, timeout=_START_SECONDS, retries=False) as client:
            try:
                client.ping()
            except ConnectionLost:
                return False
        return True

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """Send SIGTERM, unless it has ended, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.log_text().rpartition("\n")[0].splitlines()  # the last may be incomplete
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def log_text(self) -> str:
        return self._log.read_text()


class Configured(Daemon):
    """A daemon whose embedding model is set in an environment file that can be rewritten."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._file = folder / "sidecar.env"
        self.write(model)
        super().__init__(folder, "--env-file", str(self._file))

    def write(self, model: Path, **others: str) -> None:
        values = {"SIDECAR_EMBEDDING_MODEL": str(model), **others}
        self._file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def hang_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def children(self) -> list[psutil.Process]:
        """Wait until the daemon has started processes, and return them."""
        assert self.process is not None
        while not (found := psutil.Process(self.process.pid).children(recursive=True)):
            time.sleep(_LOOK_SECONDS)
        return found

    def wait_for(self, name: str, times: int = 1) -> None:
        """Wait until the daemon has logged `times` events called `name`."""
        assert self.process is not None
        deadline = time.monotonic() + _PATIENCE
        while len(self.events(name)) < times:
            assert self.process.poll() is None, "the daemon has ended"
            assert time.monotonic() < deadline, f"no {name}"
            time.sleep(_LOOK_SECONDS)
