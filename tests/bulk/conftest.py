"""What the tests of whole corpora share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .world import FakeDaemon, told


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A scripted daemon that listens."""
    with FakeDaemon(tmp_path / "s") as daemon:
        daemon.script = told
        yield daemon
