"""Run the command in the test process, where every import is already loaded, or in a subprocess."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from sidecar.cli import main

from ..preparing import prepare_here


def sidecar(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, and return what a subprocess would have given."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, _environment(environ), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = main(arguments)
        except SystemExit as stopped:  # raised by argparse
            code = stopped.code
    return subprocess.CompletedProcess(
        ["sidecar", *arguments], code, out.getvalue(), err.getvalue()
    )


def prepare(folder: Path, cache: Path, **environ: str) -> None:
    """Prepare the model in `folder` in this process, so that a daemon need not start one for it."""
    with pytest.MonkeyPatch.context() as patch:
        prepare_here(patch)
        done = sidecar("prepare", str(folder), "--cache-dir", str(cache), **environ)
    assert done.returncode == 0, done.stderr


def sidecar_process(
    *arguments: str, stdin: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments], input=stdin,
        capture_output=True, text=True, env=_environment(environ), timeout=240, check=False,
    )  # fmt: skip


def _environment(own: dict[str, str]) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    return clean | {"SIDECAR_DEVICE": "cpu"} | own  # even if the host has a CUDA device
