"""The gateway as a service: what it passes on, and how it starts and stops."""

import json
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest

from client_lib.wire.errors import Draining
from client_lib.wire.messages import Cancel, Embed, Rerank
from sidecar.cli import main

from ..client_lib.fake_daemon import Act, FakeDaemon, answer, first
from .process import GatewayProcess

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def post(http: httpx2.Client, headers: Any = None, **body: Any) -> httpx2.Response:
    return http.post("/v1/embeddings", json={"input": "a", **body}, headers=headers)


def test_options_reach_the_daemon(http: httpx2.Client, fake: FakeDaemon) -> None:
    """OpenAI's options and Sidecar's own reach the daemon."""
    options = {
        "model": "fake", "dimensions": 4, "prompt_name": "query", "role": "document",
        "normalize": False, "truncate": False, "priority": "bulk",
    }  # fmt: skip
    assert post(http, **options).status_code == 200
    (request,) = fake.wait_for(Embed)
    assert {name: getattr(request, name) for name in options} == options
    body = {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "priority": "bulk"}
    assert http.post("/v1/rerank", json=body).status_code == 200
    (request,) = fake.wait_for(Rerank)
    assert (request.documents, request.top_n, request.priority) == (("a", "b"), 1, "bulk")


def test_a_trace_is_passed_on_and_named(http: httpx2.Client, fake: FakeDaemon) -> None:
    """The caller's trace, or a new one, goes to the daemon and into `x-request-id`."""
    named = [
        post(http, headers).headers["x-request-id"]
        for headers in ({"traceparent": TRACEPARENT}, {}, {"traceparent": "00-nonsense"})
    ]
    sent = [request.traceparent for request in fake.wait_for(Embed, 3)]
    assert sent[0] == TRACEPARENT
    assert [traceparent.split("-")[1] for traceparent in sent] == named
    assert named[0] == TRACE
    assert len(set(named)) == 3
    assert len(http.get("/nothing").headers["x-request-id"]) == 32


def test_connections_are_few(
    http: httpx2.Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """The gateway opens two connections to the daemon: one for requests, one for its state."""
    before = fake.connections
    asked = [submit(post, http, input=f"{index}") for index in range(50)]
    assert {future.result().status_code for future in asked} == {200}
    http.get("/metrics")
    http.get("/metrics")
    assert fake.connections - before <= 2


def test_a_caller_that_leaves_is_cancelled(raw: socket.socket, fake: FakeDaemon) -> None:
    """When a caller disconnects, its request is cancelled in the daemon."""
    fake.script = lambda _: Act.SILENCE
    body = json.dumps({"input": "a"}).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n" + head + body)
    (request,) = fake.wait_for(Embed)
    raw.close()
    (cancel,) = fake.wait_for(Cancel)
    assert cancel.target == request.id


@pytest.mark.parametrize("act", [Act.HANG_UP, Draining("going")], ids=["gone", "draining"])
def test_a_daemon_that_goes_is_followed_by_the_next(
    http: httpx2.Client, fake: FakeDaemon, act: Any
) -> None:
    """A daemon that hangs up or drains is retried, and the caller gets an answer."""
    fake.script = first(act)
    assert post(http).status_code == 200


def test_a_restart_in_mid_request_loses_nothing(
    http: httpx2.Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Requests in flight during a daemon restart are sent again and answered."""
    fake.script = lambda _: Act.SILENCE
    asked = submit(post, http)
    fake.wait_for(Embed)
    fake.stop()
    fake.script = answer
    fake.start()
    assert asked.result().status_code == 200


def held(fake: FakeDaemon) -> Event:
    """Make the daemon answer only once the returned event is set."""
    released = Event()

    def script(request: Any) -> Any:
        assert released.wait(30)
        return answer(request)

    fake.script = script
    return released


def test_sigterm_finishes_what_was_begun(fake: FakeDaemon, submit: Callable[..., Any]) -> None:
    """On SIGTERM the gateway finishes the requests in progress and exits with 0."""
    released = held(fake)
    with (
        GatewayProcess(fake.socket) as running,
        httpx2.Client(base_url=running.address, timeout=30) as http,
    ):
        asked = submit(post, http)
        fake.wait_for(Embed)
        running.signal()
        assert running.event("gateway.draining")["in_flight"] == 1
        released.set()
        assert asked.result().status_code == 200
        assert running.event("gateway.stopped")["exit_code"] == running.wait() == 0


def test_a_second_signal_forces(fake: FakeDaemon, submit: Callable[..., Any]) -> None:
    """A second signal ends the gateway at once with exit code 1, without an answer."""
    released = held(fake)
    with (
        GatewayProcess(fake.socket) as running,
        httpx2.Client(base_url=running.address, timeout=30) as http,
    ):
        asked = submit(post, http)
        fake.wait_for(Embed)
        running.signal()
        running.event("gateway.draining")
        running.signal()
        assert running.event("gateway.stopped")["exit_code"] == running.wait() == 1
        assert isinstance(asked.exception(), httpx2.TransportError)
        released.set()


def test_a_unix_socket_is_the_groups(fake: FakeDaemon, tmp_path: Path) -> None:
    """The Unix socket has mode 0660, serves one gateway only and is removed with it."""
    path = tmp_path / "http.sock"
    with GatewayProcess(fake.socket, "--uds", str(path)) as running:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert running.address == f"unix:{path}"
        assert main(["gateway", "--uds", str(path)]) == 78
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path), verify=False)) as http:
            assert http.post("http://x/v1/embeddings", json={"input": "a"}).status_code == 200
        assert running.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--host", "0.0.0.0"], "--api-key-file, or pass --allow-unauthenticated"),
        (["--host", "::"], "is reachable from other hosts"),
        (["--host", "192.0.2.1", "--allow-unauthenticated"], "Cannot assign requested address"),
        (["--uds", "/tmp/s", "--port", "1"], "give one or the other"),
        (["--port", "70000"], "--port=70000: must be a number from 0 to 65535"),
        (["--timeout", "0"], "--timeout=0: must be a number"),
        (["--timeout", "soon"], "--timeout=soon: must be a number"),
        (["--timeout", "nan"], "--timeout=nan: must be a number from 0.001 to 86400"),
        (["--timeout", "inf"], "--timeout=inf: must be a number from 0.001 to 86400"),
        (["--max-body-bytes", "1"], "--max-body-bytes=1: must be a number"),
        (["--api-key-file", "/no/such/file"], "cannot be read: No such file"),
        (["--api-key-file", "/dev/null"], "contains no key: generate one with"),
        (["--max-connections", "0"], "--max-connections=0: must be a number from 1 to 65536"),
        (["--uds", "/tmp/s", "--allow-host", "x"], "--uds accepts any name"),
    ],
)
def test_a_wrong_configuration_does_not_start(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    """An invalid configuration prints one line that says why, and exits with 78."""
    assert main(["gateway", *flags]) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_open_gateway_says_so(fake: FakeDaemon) -> None:
    """A gateway open to all users warns about it, unless that was asked for."""
    with GatewayProcess(fake.socket) as running:
        running.signal()
        assert "--api-key-file" in running.event("gateway.open")["message"]
    with GatewayProcess(fake.socket, "--allow-unauthenticated") as running:
        running.signal()
        with pytest.raises(AssertionError, match="ended without"):
            running.event("gateway.open")


def test_too_few_open_files_are_refused_at_the_start() -> None:
    """Too low a limit on open files exits with 78, naming the option and how many it takes."""
    command = f"ulimit -n 600 && exec {sys.executable} -m sidecar gateway --port 0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "--max-connections=512 needs 1088 open files" in done.stderr


def test_the_limit_on_open_files_is_raised(fake: FakeDaemon) -> None:
    """The soft limit on open files is raised to what all connections take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        with GatewayProcess(fake.socket) as running:
            assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[0] == 1088
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_port_that_is_taken_is_refused(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port in use exits with 78, naming the port."""
    port = str(httpx2.URL(gateway.address).port)
    assert main(["gateway", "--port", port]) == 78
    assert f"--port {port}: Address already in use" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the `gateway` extra, the error gives the command that installs it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sidecar.gateway.serve", raising=False)
    assert main(["gateway"]) == 78
    assert "uvicorn: pip install 'embedding-sidecar[gateway]'" in capsys.readouterr().err


def test_other_hosts_may_be_let_in(fake: FakeDaemon) -> None:
    """With `--allow-unauthenticated`, a gateway without keys may listen for other hosts."""
    flags = ("--host", "0.0.0.0", "--allow-unauthenticated")
    with GatewayProcess(fake.socket, *flags) as running:
        url = running.address.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.post(f"{url}/v1/embeddings", json={"input": "a"}).status_code == 200
