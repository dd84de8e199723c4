"""A model that is prepared in a process of its own."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.models.order import Order
from sidecar.models.precision import Precision

pytestmark = pytest.mark.slow


def test_who_has_no_parent_left_prepares_nothing(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """A daemon that ended before its child could watch it leaves no process at work."""
    order = Order(
        folder=make_model(),
        name="orphan",
        precision=Precision("int8", 8, 0.0),
        output=tmp_path / "made",
    )
    done = subprocess.run(
        [sys.executable, "-m", "sidecar.models.apart", "1"],  # init is not who started it
        input=json.dumps(dataclasses.asdict(order), default=str),
        text=True,
        check=False,
    )
    assert done.returncode == 143
    assert list(tmp_path.iterdir()) == []
