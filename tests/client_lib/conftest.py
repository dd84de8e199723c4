"""A daemon to talk to, and both clients behind one interface."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from client_lib import AsyncClient, Client

from .fake_daemon import FakeDaemon


class DrivenClient:
    """An `AsyncClient` with the blocking interface of `Client`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: self._runner.run(method(*args, **options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A scripted daemon that is listening."""
    with FakeDaemon(tmp_path / "s") as daemon:
        yield daemon


@pytest.fixture(params=["fake", pytest.param("daemon", marks=pytest.mark.slow)])
def daemon_socket(request: pytest.FixtureRequest) -> Path:
    """The socket of a running daemon: the scripted one, or a real one."""
    return request.getfixturevalue(request.param).socket


@pytest.fixture(params=[Client, DrivenClient], ids=["Client", "AsyncClient"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Create clients of one kind, and close them after the test."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(request.param(*args, **options))


@pytest.fixture
def submit() -> Iterator[Callable[..., Any]]:
    """Run a call in a thread and return its future."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit
