"""One daemon for all adapter tests, whose model has prompts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from client_lib import Client


@pytest.fixture(scope="session")
def socket(prompted_daemon: Any) -> str:
    return str(prompted_daemon.socket)


@pytest.fixture
def client(socket: str) -> Iterator[Client]:
    """A client of the same daemon, without an adapter."""
    with Client(socket) as client:
        yield client


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Register an adapter to be closed after the test, and return it."""
    with ExitStack() as stack:

        def open_(adapter: Any) -> Any:
            stack.callback(adapter.close)
            return adapter

        yield open_
