"""A real `sidecar gateway` as a process of a test's own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

_STOP_SECONDS = 30.0
# `sidecar`, with as much patience for who takes no answers as its first argument says.
_HASTY = """
import sys
from sidecar.gateway import connection, sending
connection.TAKE_SECONDS = sending.TAKE_SECONDS = float(sys.argv.pop(1))
from sidecar.cli import main
sys.exit(main(sys.argv[1:]))
"""


class GatewayProcess:
    """Starts on entering, listens before the block begins, is stopped on leaving.

    `take_seconds` is how long a caller may take nothing of its answer, where that is not as usual.
    """

    def __init__(self, daemon: Path, *flags: str, take_seconds: float | None = None) -> None:
        # What a test asks for is asked on any port that is free.
        where = [] if "--uds" in flags else ["--port", "0"]
        program = ["-m", "sidecar"] if take_seconds is None else ["-c", _HASTY, str(take_seconds)]
        self._command = [
            sys.executable, *program, "gateway", "--socket", str(daemon), *where, *flags,
        ]  # fmt: skip
        self.address = ""
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on leaving
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # In a journal's service `auto` would write there.
        environ = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
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
        """Stop it. Whatever happened, it had nothing to say but events."""
        self.stop()
        with self._complaints as said:
            said.seek(0)
            assert said.read() == ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def event(self, name: str) -> dict[str, Any]:
        """Return the next event of that name, once it has come."""
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
        """Ask it to stop and return its exit code."""
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
