"""A daemon of its own for a measurement, gone afterwards."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def launched(
    *flags: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start `sidecar serve` with `flags` and yield it, and its socket, which may not be there yet.

    Its events go to a file.
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        folder = Path(place)
        socket = folder / "sidecar.sock"
        command = [sys.executable, "-m", "sidecar", "serve", "--socket", str(socket), *flags]
        with (folder / "events.jsonl").open("wb") as events:
            process = subprocess.Popen(command, stdout=events, env=environ)
        try:
            yield process, socket
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def running(*flags: str) -> Iterator[Path]:
    """Run `sidecar serve` with `flags` and yield its socket."""
    # Here alone: who measures memory starts daemons too, and maps nothing that they have mapped.
    from client_lib import Client  # noqa: PLC0415

    with launched(*flags) as (_, socket):
        with Client(socket, timeout=120) as client:
            client.ping()
        yield socket


def pause() -> None:
    """Let the caches' and the scheduler's after-effects of one side pass before the other."""
    time.sleep(0.2)
