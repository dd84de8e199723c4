"""Runs applications side by side, and looks at what they hold when all of them have computed.

This process maps none of their libraries: of a page that it had mapped, too, they would hold
only a part.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench import bytecode, memory
from bench.daemon import launched
from sidecar.models.source import locate

_BATCH = 16
_BATCHES = 2  # to become warm, and to be so still when the last one has become it
TEXTS_EACH = _BATCH * _BATCHES
_STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of PSS; the daemon's are 0 where there is none."""

    apps: Sequence[int]
    daemon: int = 0

    @property
    def all(self) -> int:
        return sum(self.apps) + self.daemon


class Together:
    """What is embedded and by which model; `texts` go to the applications in turn."""

    def __init__(self, model: str, texts: Sequence[str], workshop: Path) -> None:
        """Prepare `model` in `workshop`, in both precisions."""
        self._texts = texts
        self._environ = {**bytecode.keeping(workshop / "bytecode"), "TQDM_DISABLE": "1"}
        self._folder = locate(model)
        self._int8 = _prepared(model, "int8", workshop)
        self._fp32 = _prepared(model, "none", workshop)

    def with_daemon(self, n: int) -> Held:
        """Look at `n` applications with a client each, and at their daemon."""
        flags = ("--device", "cpu", "--embedding-model", str(self._int8))
        with (
            launched(*flags, environ=self._environ) as (daemon, socket),
            self._running("client", socket, n) as apps,
        ):
            return Held([_pss(each) for each in apps], _pss(daemon))

    def in_torch(self, n: int) -> Held:
        """Look at `n` applications with sentence-transformers each."""
        with self._running("in_torch", self._folder, n) as apps:
            return Held([_pss(each) for each in apps])

    def in_onnxruntime(self, n: int) -> Held:
        """Look at `n` applications with onnxruntime each."""
        with self._running("in_onnxruntime", self._fp32, n) as apps:
            return Held([_pss(each) for each in apps])

    @contextmanager
    def _running(
        self, app: str, argument: Path, n: int
    ) -> Iterator[Sequence[subprocess.Popen[str]]]:
        """Run `n` of an application until the block ends. All have just computed texts."""
        command = [sys.executable, "-m", f"bench.apps.{app}", str(argument)]
        with ExitStack() as stack:
            apps = [stack.enter_context(_started(command, self._environ)) for _ in range(n)]
            todo = cycle(self._texts)
            for _ in range(_BATCHES):
                for each in apps:
                    _ask(each, list(islice(todo, _BATCH)))
                for each in apps:
                    _await_answer(each)
            yield apps


@contextmanager
def _started(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()  # what it waits for
        process.wait(_STOP_SECONDS)


def _ask(app: subprocess.Popen[str], batch: list[str]) -> None:
    assert app.stdin is not None
    print(json.dumps(batch), file=app.stdin, flush=True)


def _await_answer(app: subprocess.Popen[str]) -> None:
    assert app.stdout is not None
    if not app.stdout.readline():
        raise RuntimeError(f"{app.args} ended with {app.wait()}")


def _pss(process: subprocess.Popen[Any]) -> int:
    return memory.held(process.pid)["Pss"]


def _prepared(model: str, quantization: str, workshop: Path) -> Path:
    artifact = workshop / quantization
    flags = ["--quantization", quantization, "--output", str(artifact)]
    command = [sys.executable, "-m", "sidecar", "prepare", model, *flags]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return artifact
