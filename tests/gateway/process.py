"""A real `sidecar gateway` process for a test."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

_STOP_SECONDS = 30.0
# `sidecar`, with the time to read an answer set by its first argument.
_HASTY = """
import sys
from sidecar.gateway import connection, sending
connection.TAKE_SECONDS = sending.TAKE_SECONDS = float(sys.argv.pop(1))
from sidecar.cli import main
sys.exit(main(sys.argv[1:]))
"""


class GatewayProcess:
    """A gateway that listens once the block is entered and is stopped when it is left.

    `take_seconds` overrides how long a caller may go without reading its answer.
    """

    def __init__(self, daemon: Path, *flags: str, take_seconds: float | None = None) -> None:
        # Any free port, unless the test uses a Unix socket.
        where = [] if "--uds" in flags else ["--port", "0"]
        program = ["-m", "sidecar"] if take_seconds is None else ["-c", _HASTY, str(take_seconds)]
        self._command = [
            sys.executable, *program, "gateway", "--socket", str(daemon), *where, *flags,
        ]  # fmt: skip
        self.address = ""
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on leaving
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # Under systemd, the `auto` log format would write to the journal.
        environ = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environ,
        )
        try:
            self.address = self.event("gateway.listening")["address"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the process, and check that it wrote nothing to stderr."""
        self.stop()
        with self._stderr as stderr:
            stderr.seek(0)
            assert stderr.read() == ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def event(self, name: str) -> dict[str, Any]:
        """Wait for the next event of that name and return it."""
        for line in self._out:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"the gateway ended without {name}")

    def signal(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self.signal()
        code = self.wait()
        self._out.close()
        return code

    @property
    def _out(self) -> Any:
        assert self._process is not None
        return self._process.stdout
