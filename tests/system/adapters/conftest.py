"""The daemon and the clients that all tests of adapters have."""

import pytest

from ...client_lib.adapters.conftest import client, opened, socket

__all__ = ["client", "opened", "socket"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks of frameworks' own tests, whose plugins these tests do without."""
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: langchain-tests' own")
