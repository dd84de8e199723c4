"""Which requests are refused and how, in front of a daemon scripted to fail."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire import errors
from client_lib.wire.messages import Embed
from sidecar.gateway.bodies import EmbeddingsBody, RerankBody, parse
from sidecar.gateway.refusals import Refusal, refusal_of

from ..client_lib.fake_daemon import Act, FakeDaemon, answer, first
from .conftest import connect
from .process import GatewayProcess


def post(http: httpx2.Client, path: str = "/v1/embeddings", **body: Any) -> httpx2.Response:
    return http.post(path, json=body)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.BadRequest("no"), 400, "invalid_request_error"),
        (errors.Forbidden("no"), 403, "permission_error"),
        (errors.UnknownModel("no"), 404, "invalid_request_error"),
        (errors.TooLarge("no"), 413, "invalid_request_error"),
        (errors.Overloaded("no", retry_after_ms=90_000), 429, "rate_limit_error"),
        (errors.BackendFailed("no", index=1), 500, "server_error"),
        (errors.DeadlineExceeded("no"), 504, "server_error"),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_the_daemons_errors_have_their_status(
    http: httpx2.Client, fake: FakeDaemon, error: errors.ReplyError, status: int, kind: str
) -> None:
    """Each daemon error has its HTTP status, and OpenAI's format with the daemon's code."""
    fake.script = first(error)
    reply = post(http, input=["a", "b"])
    shown = reply.json()["error"]
    assert set(shown) == {"message", "type", "param", "code"}
    assert (reply.status_code, shown["type"], shown["code"]) == (status, kind, error.code)
    params = {"unknown_model": "model", "backend_failed": "input[1]"}
    assert shown["param"] == params.get(error.code)
    assert reply.headers.get("retry-after") == ("90" if status == 429 else None)


def test_errors_without_an_answer_have_theirs() -> None:
    """No daemon is 503, no answer in time 504, and anything unexpected 500."""
    statuses = {
        errors.ConnectionLost: 503, errors.Draining: 503, errors.ClientClosed: 503,
        errors.UntrustedDaemon: 503,
        errors.CallTimeout: 504, errors.FrameTooLarge: 413,
        errors.ProtocolError: 500, errors.UnsupportedVersion: 500,
    }  # fmt: skip
    assert {kind: refusal_of(kind("no")).status for kind in statuses} == statuses
    codes = {kind: refusal_of(kind("no")).code for kind in statuses}
    assert codes == {
        errors.ConnectionLost: "connection_lost", errors.Draining: "draining",
        errors.ClientClosed: "draining", errors.UntrustedDaemon: "untrusted_daemon",
        errors.CallTimeout: "deadline_exceeded", errors.FrameTooLarge: "too_large",
        errors.ProtocolError: "backend_failed", errors.UnsupportedVersion: "backend_failed",
    }  # fmt: skip


def test_when_to_come_back_is_told_in_whole_seconds() -> None:
    """`Retry-After` is the daemon's pause rounded up to whole seconds, at least one."""
    headers = {None: "1", 0.0: "1", 1.0: "1", 999.0: "1", 1000.0: "1", 1001.0: "2", 90_500.0: "91"}
    for milliseconds, seconds in headers.items():
        refusal = refusal_of(errors.Overloaded("full", retry_after_ms=milliseconds))
        assert refusal.headers == {"retry-after": seconds}, milliseconds
    assert refusal_of(errors.TooLarge("no", retry_after_ms=1000)).headers == {}


def test_kinds_of_refusals_are_openais() -> None:
    """The error's `type` is OpenAI's for each HTTP status."""
    kinds = {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
        404: "invalid_request_error", 421: "invalid_request_error", 429: "rate_limit_error",
        499: "invalid_request_error", 500: "server_error", 503: "server_error",
    }  # fmt: skip
    for status, kind in kinds.items():
        refusal = Refusal(status, "text", code="c", param="p", headers={"x": "y"}).response()
        assert (refusal.status_code, refusal.headers["x"]) == (status, "y")
        expected = {"message": "text", "type": kind, "param": "p", "code": "c"}
        assert json.loads(bytes(refusal.body)) == {"error": expected}


@pytest.mark.parametrize("body", [
    {"input": "a", "dimensions": 2**31 - 1}, {"input": "a", "dimensions": 1}, {"input": [""]},
    {"input": ["a"], "encoding_format": "base64", "user": "u", "role": "document"},
])  # fmt: skip
def test_what_is_just_right_is_taken(body: Any) -> None:
    """Values at the limits are accepted, and missing fields get the documented defaults."""
    parsed = parse(EmbeddingsBody, json.dumps(body).encode())
    assert {name: getattr(parsed, name) for name in body} == body
    left_out = {
        "encoding_format": "float", "dimensions": None, "prompt_name": None, "role": None,
        "normalize": None, "model": None, "truncate": True, "priority": "interactive",
    }  # fmt: skip
    assert all(getattr(parsed, k) == v for k, v in left_out.items() if k not in body)


def test_only_token_ids_are_advised_against() -> None:
    """Only token ids in `input` get the advice to send text; other numbers are type errors."""
    advised = {
        b'{"input": [1]}': True, b'{"input": [[1]]}': True, b'{"input": ["a", 2]}': True,
        b'{"input": "a", "dimensions": "2"}': False, b'{"input": {"a": 1}}': False,
    }  # fmt: skip
    for body, expected in advised.items():
        with pytest.raises(Refusal) as refused:
            parse(EmbeddingsBody, body)
        assert ("send the text itself" in refused.value.message) == expected, body
    with pytest.raises(Refusal) as refused:
        parse(RerankBody, b'{"query": "q", "documents": [1]}')
    assert "send the text itself" not in refused.value.message


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("embeddings", {}, "input", "missing required field `input`"),
        ("embeddings", {"input": []}, "input", "length >= 1"),
        ("embeddings", {"input": [1, 2]}, "input[0]", "token ids are not supported"),
        ("embeddings", {"input": ["a", None]}, "input[1]", "got `null`"),
        ("embeddings", {"input": "a", "dimensions": 0}, "dimensions", "`int` >= 1"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "'hex'"),
        ("embeddings", {"input": "a", "priority": "urgent"}, "priority", "'urgent'"),
        ("embeddings", {"input": "a", "role": "passage"}, "role", "'passage'"),
        ("embeddings", {"input": "a", "dimension": 3}, "dimension", "unknown field `dimension`"),
        ("rerank", {"documents": ["a"]}, "query", "missing required field `query`"),
        ("rerank", {"query": "q", "documents": []}, "documents", "length >= 1"),
        ("rerank", {"query": "q", "documents": [{"txt": "a"}]}, "documents[0]", "`txt`"),
        ("rerank", {"query": "q", "documents": ["a"], "top_n": -1}, "top_n", "`int` >= 1"),
        ("rerank", {"query": "q", "documents": ["a"], "top_n": 2**31}, "top_n", "<= 2147483647"),
        ("embeddings", {"input": "a", "dimensions": 2**70}, "dimensions", "<= 2147483647"),
        ("embeddings", {"input": "a", "dimensions": 1.5}, "dimensions", "got `float`"),
        ("embeddings", {"input": "a", "dimensions": True}, "dimensions", "got `bool`"),
    ],
)
def test_a_field_that_is_wrong_is_named(
    http: httpx2.Client, path: str, body: Any, param: str, message: str
) -> None:
    """An invalid field is answered with 400, its name in `param` and what was expected."""
    reply = post(http, f"/v1/{path}", **body)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, "bad_request")
    assert message in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nope", b'{"input": "\xff"}', b"[" * 4000,
        b'{"input": "a", "dimensions": ' + b"9" * 4000 + b"}",
        b'{"input": "a", "dimensions": ' + b"9" * 4000 + b".0}",
        b'{"input": "a", "dimensions": 1e999}',
        b'{"input": "a", "dimensions": -0}',
        b'{"input": "a", "dimensions": NaN}',
        b'{"input": "a", "user": ' + b'{"a":' * 700,
    ],
    ids=lambda body: body[-30:].decode(errors="replace"),
)  # fmt: skip
def test_what_is_not_json_is_refused(http: httpx2.Client, body: bytes) -> None:
    """A body that is not valid JSON gets 400 and leaves the connection usable."""
    headers = {"content-type": "application/json"}
    assert http.post("/v1/embeddings", content=body, headers=headers).status_code == 400
    assert post(http, input="a").status_code == 200


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    """Arbitrary bytes as a body raise nothing but `Refusal`."""
    for kind in (EmbeddingsBody, RerankBody):
        with pytest.raises(Refusal):
            parse(kind, data)


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00", r"\ude00\ud83d"])
def test_half_a_character_is_refused(half: str) -> None:
    """A lone surrogate escape is refused, since it has no encoding; a pair is accepted."""
    with pytest.raises(Refusal):
        parse(EmbeddingsBody, f'{{"input": "{half} and more"}}'.encode())
    assert parse(EmbeddingsBody, rb'{"input": "\ud83d\ude00"}').input == "\U0001f600"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_web_page_could_send_unasked_is_refused(
    http: httpx2.Client, content_type: str
) -> None:
    """Content types that need no CORS preflight get 415, and a preflight gets 405."""
    headers = {"content-type": content_type}
    reply = http.post("/v1/embeddings", content=b'{"input": "a"}', headers=headers)
    assert reply.status_code == 415
    assert http.options("/v1/embeddings").status_code == 405


def test_paths_and_methods_that_there_are_not(http: httpx2.Client) -> None:
    """Unknown paths get 404 and wrong methods 405, in the common error format."""
    missing, wrong = http.get("/v1/completions"), http.get("/v1/embeddings")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["message"] == "GET /v1/completions: Not Found"
    assert wrong.headers["allow"] == "POST"


def _head(length: str) -> bytes:
    lines = [
        "POST /v1/embeddings HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        length,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_body_that_announces_too_much_is_not_waited_for(raw: socket.socket) -> None:
    """A body with too large a content-length gets 413 before it is sent."""
    raw.sendall(_head("content-length: 4097"))
    assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_bounded_too(raw: socket.socket) -> None:
    """A chunked body gets 413 as soon as it exceeds the limit, before its end."""
    raw.sendall(_head("transfer-encoding: chunked") + b"1001\r\n" + b"x" * 4097 + b"\r\n")
    assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "lines",
    [
        ["content-length: -1"], ["content-length: +5"], ["content-length: five"],
        ["content-length: " + "9" * 4000], ["content-length: 0x5"], ["content-length: 1_0"],
        ["content-length: 5", "content-length: 6"],
        ["transfer-encoding: gzip"], ["x y: z"], ["host: other"],
    ],
    ids=lambda lines: lines[-1][:30],
)  # fmt: skip
def test_a_header_that_cannot_be_read_is_refused(raw: socket.socket, lines: list[str]) -> None:
    """A malformed header gets 400 in the common error format, and the connection is closed."""
    raw.sendall(_head("\r\n".join(lines)))
    answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_a_header_is_bounded(http: httpx2.Client, raw: socket.socket) -> None:
    """A header that is too long is refused, whether it is complete (431) or not (400)."""
    whole = http.get("/health", headers={"x": "y" * 20_000})
    assert (whole.status_code, whole.json()["error"]["code"]) == (431, "header_too_large")
    assert http.get("/health?" + "y" * 20_000).status_code == 431
    raw.sendall(_head("x: " + "y" * 20_000)[:-4])
    assert raw.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_chunk_that_cannot_be_read_is_refused(raw: socket.socket) -> None:
    """A chunk whose length line never ends gets 400."""
    raw.sendall(_head("transfer-encoding: chunked") + b"f" * 4000 + b"\r\n")
    assert raw.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("traceparent", ["9" * 4000, "00-" + "f" * 8000, "\xff", "00--", ""])
def test_any_trace_is_survived(http: httpx2.Client, traceparent: str) -> None:
    """An invalid traceparent is replaced by a new trace."""
    reply = http.post(
        "/v1/embeddings",
        json={"input": "a"},
        headers={"traceparent": traceparent.encode("latin-1")},
    )
    assert (reply.status_code, len(reply.headers["x-request-id"])) == (200, 32)


def test_a_body_of_the_greatest_length_is_taken(http: httpx2.Client) -> None:
    """A body of exactly the maximum length is accepted."""
    body = json.dumps({"input": ""}).encode()
    full = body.replace(b'""', b'"' + b"x" * (4096 - len(body)) + b'"')
    headers = {"content-type": "application/json"}
    assert http.post("/v1/embeddings", content=full, headers=headers).status_code == 200


@pytest.fixture(scope="module")
def hasty(fake_of_module: FakeDaemon) -> Any:
    """A gateway with a request timeout of 0.2 s."""
    with GatewayProcess(fake_of_module.socket, "--timeout", "0.2") as running:
        yield running


def test_a_body_that_does_not_come_is_not_waited_for_long(hasty: GatewayProcess) -> None:
    """A request whose body does not arrive gets 408 when its time is up."""
    with connect(hasty) as sock:
        sock.sendall(_head("content-length: 100") + b'{"input":')
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_daemon_that_does_not_answer_in_time(hasty: GatewayProcess, fake: FakeDaemon) -> None:
    """A daemon that does not answer yields 504, and was given the request's timeout."""
    fake.script = lambda _: Act.SILENCE
    reply = httpx2.post(f"{hasty.address}/v1/embeddings", json={"input": "a"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    (request,) = fake.wait_for(Embed)
    assert 0 < request.timeout_ms <= 200


@pytest.mark.slow
def test_no_daemon_is_told_with_advice(no_daemon: Path) -> None:
    """Without a daemon every path answers 503, naming the socket that was tried."""
    with (
        GatewayProcess(no_daemon, "--timeout", "0.2") as running,
        httpx2.Client(base_url=running.address, verify=False) as http,
    ):
        replies = [post(http, input="a"), http.get("/v1/models"), http.get("/metrics")]
        health = http.get("/health")
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "connection_lost")
        assert str(no_daemon) in reply.json()["error"]["message"]
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        ({"state": "serving", "healthy": True}, 200, "ok"),
        ({"state": "reloading", "healthy": True}, 200, "ok"),
        ({"state": "draining", "healthy": True}, 503, "unavailable"),
        ({"state": "serving", "healthy": False}, 503, "unhealthy"),
    ],
)
def test_health_is_whether_requests_are_served(
    http: httpx2.Client, fake: FakeDaemon, status: Any, code: int, word: str
) -> None:
    """Without a key, /health answers one word, and 200 only while requests are served."""
    fake.script = lambda _: {"status": status}
    reply = http.get("/health")
    assert (reply.status_code, reply.json()) == (code, {"status": word})


def test_a_fault_of_the_gateway_is_an_event(
    http: httpx2.Client, gateway: GatewayProcess, fake: FakeDaemon
) -> None:
    """A bug in the gateway is logged with its traceback; the caller gets 500 and the trace id."""
    fake.script = lambda _: {"status": {}}  # lacks `models`
    reply = http.get("/v1/models")
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "gateway_failed")
    event = gateway.event("gateway.failed")
    assert (event["error"], event["path"]) == ("KeyError", "/v1/models")
    assert event["trace_id"] == reply.headers["x-request-id"]
    assert "in models" in event["traceback"]
    assert reply.headers["connection"] == "close"
    fake.script = answer
    assert post(http, input="a").status_code == 200
