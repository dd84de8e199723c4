"""A peer's server while it is measured: a group of processes of its own, asleep in between."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from tempfile import mkdtemp

from bench.callers import Ask
from bench.peers.ask import connected
from bench.peers.peer import Inputs, Service, Setting

_START_SECONDS = 300
_STOP_SECONDS = 15
_LOOK_SECONDS = 0.2
_LAST_WORDS = 300  # characters of a log


class Server:
    """A group of processes that answers on a port of 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, inputs: Inputs) -> None:
        self._process = process
        self._port = port
        self._inputs = inputs

    def connect(self) -> AbstractContextManager[Ask]:
        return connected(self._port, self._inputs)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run within the block alone: some of them poll when they have nothing to do."""
        os.killpg(self._process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.sleep()

    def sleep(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def await_answer(self, log: Path) -> None:
        """Return when it answers. Raises `RuntimeError` with its last words if it does not."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError, HTTPException, RuntimeError), self.connect() as ask:
                ask("hello")
                return
            time.sleep(_LOOK_SECONDS)
        code = self._process.poll()
        fate = "no answer" if code is None else f"ended with {code}"
        words = log.read_text("utf-8", "replace")[-_LAST_WORDS:]
        raise RuntimeError(f"{fate}: {' '.join(words.split())}")


@contextmanager
def serving(service: Service, python: Path, setting: Setting) -> Iterator[Server]:
    """Start a server and yield it, asleep, when it has answered. It is gone afterwards."""
    own = replace(setting, workshop=Path(mkdtemp(dir=setting.workshop)))
    port = _free_port()
    inputs, command = service.inputs(own), service.command(python, port, own)
    log = own.workshop / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environ(own),
            start_new_session=True,
        )
    try:
        server = Server(process, port, inputs)
        server.await_answer(log)
        server.sleep()
        yield server
    finally:
        _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _environ(setting: Setting) -> Mapping[str, str]:
    """Return an environment with as many threads as there are cores, that asks no hub."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "TOKENIZERS_PARALLELISM")
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        **dict.fromkeys(pools, str(setting.cores)),
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(setting.workshop),
        "TMPDIR": str(setting.workshop),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, also the workers that outlive the process that made them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)  # asleep it would not notice
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
