"""Gateways in front of a scripted daemon and of a real one, and ways to call them."""

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
    """The scripted daemon behind `gateway`, with its script and its record reset."""
    fake_of_module.script = answer
    fake_of_module.seen.clear()
    return fake_of_module


@pytest.fixture(scope="module")
def gateway(fake_of_module: FakeDaemon) -> Iterator[GatewayProcess]:
    """A gateway in front of the scripted daemon, with a body limit of 4096 bytes."""
    with GatewayProcess(fake_of_module.socket, "--max-body-bytes", "4096") as running:
        yield running


@pytest.fixture
def http(gateway: GatewayProcess, fake: FakeDaemon) -> Iterator[httpx2.Client]:
    """A plain HTTP client of `gateway`; building a TLS context is slow, so it has none."""
    with httpx2.Client(base_url=gateway.address, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
def raw(gateway: GatewayProcess, fake: FakeDaemon) -> Iterator[socket.socket]:
    """A raw connection to `gateway`, for what no HTTP client would send."""
    with closing(connect(gateway)) as sock:
        yield sock


def connect(gateway: GatewayProcess) -> socket.socket:
    url = httpx2.URL(gateway.address)
    assert url.port is not None
    return socket.create_connection((url.host, url.port), timeout=30)


@pytest.fixture
def submit() -> Iterator[Callable[..., Any]]:
    """Run a call in a thread and return its future."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


@pytest.fixture
def no_daemon(tmp_path: Path) -> Path:
    """The path of a socket where nothing listens."""
    return tmp_path / "none"
