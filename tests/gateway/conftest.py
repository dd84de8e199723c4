"""Gateways before a scripted daemon and before a real one, and ways to ask them."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..client_lib.fake_daemon import FakeDaemon, answer
from .process import GatewayProcess


@pytest.fixture(scope="module")
def fake_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path_factory.mktemp("fake") / "s") as daemon:
        yield daemon


@pytest.fixture
def fake(fake_of_module: FakeDaemon) -> FakeDaemon:
    """The scripted daemon behind `gateway`, as if nobody had asked it anything yet."""
    fake_of_module.script = answer
    fake_of_module.seen.clear()
    return fake_of_module


@pytest.fixture(scope="module")
def gateway(fake_of_module: FakeDaemon) -> Iterator[GatewayProcess]:
    """A gateway before the scripted daemon, with small bounds."""
    with GatewayProcess(fake_of_module.socket, "--max-body-bytes", "4096") as running:
        yield running


@pytest.fixture
def http(gateway: GatewayProcess, fake: FakeDaemon) -> Iterator[httpx2.Client]:
    """Plain HTTP to it; a context for TLS takes long to make, and is not made."""
    with httpx2.Client(base_url=gateway.address, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def raw(gateway: GatewayProcess, fake: FakeDaemon) -> Iterator[socket.socket]:
    """A connection to it, for what no client of HTTP would do."""
    with closing(connect(gateway)) as sock:
        yield sock


def connect(gateway: GatewayProcess) -> socket.socket:
    url = httpx2.URL(gateway.address)
    assert url.port is not None
    return socket.create_connection((url.host, url.port), timeout=30)


@pytest.fixture
def submit() -> Iterator[Callable[..., Any]]:
    """Run a call in a thread; its future has what it came to."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


@pytest.fixture
def no_daemon(tmp_path: Path) -> Path:
    """The path of a socket that nobody listens at."""
    return tmp_path / "none"
