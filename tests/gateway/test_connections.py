"""Callers that hold connections without sending or reading must not keep others out."""

import json
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from client_lib.wire.messages import Cancel, Embed, Rerank

from ..client_lib.fake_daemon import Act, FakeDaemon, answer
from .conftest import connect
from .process import GatewayProcess

HALF = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\nx: "
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n"
)
BODY = b'{"input": "a"}'


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def small(fake_of_module: FakeDaemon) -> Iterator[GatewayProcess]:
    """A gateway for four connections, with the default timeouts."""
    with GatewayProcess(fake_of_module.socket, "--max-connections", "4") as running:
        yield running


@pytest.fixture(scope="module")
def hasty(fake_of_module: FakeDaemon) -> Iterator[GatewayProcess]:
    """A gateway with a request timeout of 0.3 s."""
    flags = ("--timeout", "0.3", "--max-body-bytes", "4096")
    with GatewayProcess(fake_of_module.socket, *flags) as running:
        yield running


def post(gateway: GatewayProcess) -> int:
    return httpx2.post(
        f"{gateway.address}/v1/embeddings", json={"input": "a"}, verify=False
    ).status_code


def rest_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def answer_of(sock: socket.socket) -> bytes:
    """Return one answer from a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head)
    while len(body) < int(length):
        body += sock.recv(65536)
    return head + body


def error_of(received: bytes) -> tuple[bytes, str]:
    """Return an answer's status and the code of its error."""
    head, _, body = received.partition(b"\r\n\r\n")
    return head.split(b" ")[1], json.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [HALF, b""], ids=["half", "nothing"])
def test_a_header_that_does_not_come_to_its_end_is_not_waited_for(
    hasty: GatewayProcess, sent: bytes
) -> None:
    """A connection whose header stays incomplete, or never begins, gets 408 and is closed."""
    with connect(hasty) as sock:
        sock.sendall(sent)
        assert error_of(rest_of(sock)) == (b"408", "request_timeout")


def test_a_header_that_comes_byte_by_byte_has_no_more_time(hasty: GatewayProcess) -> None:
    """A header that trickles in gets no extra time, even as a connection's second request."""
    with connect(hasty) as sock:
        sock.sendall(HEAD % len(BODY) + BODY)
        assert answer_of(sock).startswith(b"HTTP/1.1 200 ")
        sock.sendall(HALF)
        received = b""
        sock.settimeout(0.02)
        for _ in range(500):
            sock.sendall(b"y")
            with suppress(TimeoutError):
                received = sock.recv(65536)
            if received:
                break
        assert received.startswith(b"HTTP/1.1 408 ")


def test_half_a_header_keeps_nobody_out(
    small: GatewayProcess, fake: FakeDaemon, stack: ExitStack
) -> None:
    """Callers with half a header, however many, do not keep others out, and are logged once."""
    silent = [stack.enter_context(closing(connect(small))) for _ in range(40)]
    for sock in silent:
        with suppress(OSError):  # it may have been closed for a newer one
            sock.sendall(HALF)
    assert [post(small) for _ in range(5)] == [200] * 5
    assert small.event("gateway.turned_away")["reason"] == "too many connections"


def test_who_waits_for_an_answer_is_not_closed_for_another(
    small: GatewayProcess, fake: FakeDaemon, stack: ExitStack
) -> None:
    """At the limit, a newcomer gets 503 and callers awaiting an answer keep their place."""
    held: list[Any] = []
    fake.script = lambda request: held.append(request) or Act.SILENCE
    asking = [stack.enter_context(closing(connect(small))) for _ in range(4)]
    for sock in asking:
        sock.sendall(HEAD % len(BODY) + BODY)
    fake.wait_for(Embed, 4)
    with connect(small) as fifth:
        assert error_of(rest_of(fifth)) == (b"503", "overloaded")
    asking.pop().close()
    fake.wait_for(Cancel)
    fake.script = answer
    assert post(small) == 200


def test_who_has_its_answer_makes_place(
    small: GatewayProcess, fake: FakeDaemon, stack: ExitStack
) -> None:
    """At the limit, the longest-idle connection is closed for a newcomer, without an answer."""
    idle = [stack.enter_context(closing(connect(small))) for _ in range(4)]
    for sock in idle:
        sock.sendall(HEAD % len(BODY) + BODY)
        assert answer_of(sock).startswith(b"HTTP/1.1 200 ")
    assert post(small) == 200
    assert rest_of(idle[0]) == b""
    for sock in idle[1:]:
        sock.sendall(HEAD % len(BODY) + BODY)
        assert answer_of(sock).startswith(b"HTTP/1.1 200 ")


def test_what_is_announced_and_not_sent_keeps_nobody_out(
    gateway: GatewayProcess, fake: FakeDaemon, stack: ExitStack
) -> None:
    """Announced bodies that are never sent take neither in-flight slots nor body memory."""
    for _ in range(250):
        sock = stack.enter_context(closing(connect(gateway)))
        sock.sendall(HEAD % 4096 + b"{")
    assert post(gateway) == 200


def test_the_rest_of_a_refused_body_is_not_waited_for(hasty: GatewayProcess) -> None:
    """After a 413 the connection is closed even if the caller goes on sending."""
    with connect(hasty) as sock:
        sock.sendall(HEAD % 100_000 + b"x")
        assert answer_of(sock).startswith(b"HTTP/1.1 413 ")
        sock.sendall(b"x")
        assert rest_of(sock) == b""


def test_what_follows_an_answer_may_be_anything(gateway: GatewayProcess, fake: FakeDaemon) -> None:
    """Garbage after a request is answered with 400 and closes only its own connection."""
    with connect(gateway) as sock:
        sock.sendall(HEAD % len(BODY) + BODY + b"\0garbage\r\n\r\n")
        received = rest_of(sock)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in received
    with connect(gateway) as sock:
        sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
                     b"transfer-encoding: chunked\r\n\r\nzz\r\n")  # fmt: skip
        assert rest_of(sock).startswith(b"HTTP/1.1 4")


def test_without_descriptors_it_goes_on_later(fake: FakeDaemon, stack: ExitStack) -> None:
    """Without free descriptors, open connections are served, new ones wait; one line is logged."""
    with GatewayProcess(fake.socket) as running:
        with httpx2.Client(base_url=running.address, verify=False) as http:
            assert http.post("/v1/embeddings", json={"input": "a"}).status_code == 200
            before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (0, before[1]))
            late = [stack.enter_context(closing(connect(running))) for _ in range(30)]
            reason = running.event("gateway.turned_away")["reason"]
            assert reason == "cannot accept connections: Too many open files"
            assert http.post("/v1/embeddings", json={"input": "a"}).status_code == 200
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
        late[-1].sendall(HEAD % len(BODY) + BODY)
        assert late[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
        running.signal()
        assert running.event("gateway.draining")  # the next line: nothing else was logged


def test_an_answer_that_nobody_takes_is_given_up(fake: FakeDaemon, tmp_path: Path) -> None:
    """An answer that its caller does not read is dropped in time, and others are served."""
    path = tmp_path / "http.sock"
    with (
        GatewayProcess(fake.socket, "--uds", str(path), take_seconds=0.5) as running,
        closing(socket.socket(socket.AF_UNIX)) as sock,
        httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path), verify=False)) as http,
    ):
        sock.settimeout(30)
        sock.connect(str(path))
        asked = {"query": "q", "documents": ["a" * 10_000] * 200, "return_documents": True}
        body = json.dumps(asked).encode()
        sock.sendall(HEAD.replace(b"embeddings", b"rerank") % len(body) + body)
        fake.wait_for(Rerank)
        assert http.post("http://x/v1/embeddings", json={"input": "a"}).status_code == 200
        event = running.event("gateway.turned_away")
        assert event["reason"] == "an answer was not read in time"
        assert 0 < len(rest_of(sock)) < 1_000_000
