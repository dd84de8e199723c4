"""Shared fixtures for the bulk embedding tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .world import FakeDaemon, told


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    """Yield a listening scripted daemon."""
    with FakeDaemon(tmp_path / "s") as daemon:
        daemon.script = told
        yield daemon
