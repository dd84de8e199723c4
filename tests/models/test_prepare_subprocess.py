"""Preparing a model in a separate process."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest

pytestmark = pytest.mark.slow


def test_who_has_no_parent_left_prepares_nothing(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """A child whose daemon ended before the child could watch it prepares nothing."""
    order = PrepareRequest(
        folder=make_model(),
        name="orphan",
        precision=Precision("int8", 8, 0.0),
        output=tmp_path / "made",
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sidecar.models.prepare_subprocess",
            "1",
        ],  # init did not start it
        input=json.dumps(dataclasses.asdict(order), default=str),
        text=True,
        check=False,
    )
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []


_CHILD = """
import signal, sys
from sidecar.models.child import end_with_parent
end_with_parent(int(sys.argv[1]))
signal.alarm(20)  # so that no test waits for it
try:
    print("at work", flush=True)
    signal.pause()
finally:
    print("left by finally", flush=True)
"""
_PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_loses_its_parent_stops_and_cleans_up(number: int) -> None:
    """A child whose daemon ends, however it ends, stops and runs its `finally` blocks."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, _CHILD], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "at work\n"
        parent.send_signal(number)
        assert parent.stdout.read() == "left by finally\n"
