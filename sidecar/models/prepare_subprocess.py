"""Prepare a model in a separate process.

The daemon never holds FP32 weights, calibration data or what they leave in the heap: it loads the
artifact, and holds little more. The request travels as JSON on standard input; a model error comes
back as one line on standard error. If the daemon is told to stop meanwhile, the process ends with
it, and nothing half-written remains.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sidecar.memory import let_go_early
from sidecar.models import manifest as manifests
from sidecar.models.child import end_with_parent
from sidecar.models.drafts import sweep
from sidecar.models.errors import ModelError, TemporaryError, UnknownArchitectureError
from sidecar.models.manifest import Manifest
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.scarcity import killed

# The exit codes of these errors, subclasses first.
_ERRORS: Mapping[int, type[ModelError]] = {
    5: TemporaryError, 4: UnknownArchitectureError, 3: ModelError,
}  # fmt: skip


def prepare_in_subprocess(order: PrepareRequest) -> Manifest:
    """Do what `prepare` does, and raise what it raises, without using its memory."""
    done = subprocess.run(  # noqa: S603 - our own module, by this interpreter
        [sys.executable, "-m", "sidecar.models.prepare_subprocess", str(os.getpid())],
        input=json.dumps(dataclasses.asdict(order), default=str),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sweep(order.output)  # a process that is killed leaves its draft behind
        raise _failure(order.name, done.returncode, done.stderr)
    return manifests.read(order.output)


def _failure(name: str, code: int, stderr: str) -> ModelError:
    if code == -signal.SIGKILL:
        return killed(name)
    if code < 0:
        return ModelError(f"preparing {name} was terminated by signal {-code}")
    *_, last = stderr.strip().splitlines() or [f"exit code {code}"]  # libraries may print before it
    kind = _ERRORS.get(code)
    return kind(last) if kind else ModelError(f"preparing {name} failed: {last}")


def _order(text: str) -> PrepareRequest:
    fields = json.loads(text)
    fields["precision"] = Precision(**fields["precision"])
    paths = {name: Path(fields[name]) for name in ("folder", "output")}
    return PrepareRequest(**{**fields, **paths, "texts": tuple(fields["texts"])})


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    # Only here: the parent must not load what quantizes, nor onnx with it.
    from sidecar.models.prepare import prepare

    let_go_early()
    try:
        prepare(_order(sys.stdin.read()))
    except ModelError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a process's way to say it
        sys.exit(next(code for code, kind in _ERRORS.items() if isinstance(error, kind)))
