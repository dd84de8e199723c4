"""Fixtures shared by the tests of adapters: a daemon and its clients."""

import pytest

from ...client_lib.adapters.conftest import client, opened, socket

__all__ = ["client", "opened", "socket"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of the frameworks' own tests, as their plugins are not installed."""
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: langchain-tests' own")
