"""A request before it is parsed, without a server."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from sidecar.gateway.incoming import (
    HEADER_BYTES,
    Trace,
    Traced,
    check_key,
    check_length,
    has_key,
    read_body,
    while_connected,
)
from sidecar.gateway.refusals import Refusal

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEYS = (b"0123456789abcdef", b"fedcba9876543210")


def request_of(headers: dict[str, str] | None = None, *pieces: bytes) -> Request:
    """Return a request whose caller sends `pieces` and then disconnects."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def test_a_callers_trace_is_its_own() -> None:
    """A single valid traceparent is kept; otherwise a new, unique and unsampled one is made."""
    assert Trace.of([(b"x", b"y"), (b"traceparent", GIVEN.encode())]).traceparent == GIVEN
    assert Trace(GIVEN).id == "4bf92f3577b34da6a3ce929d0e0e4736"
    made = [
        Trace.of(headers).traceparent
        for headers in ([], [], [(b"traceparent", b"no")], [(b"traceparent", GIVEN.encode())] * 2)
    ]
    assert len(set(made)) == 4
    for traceparent in made:
        assert [len(part) for part in traceparent.split("-")] == [2, 32, 16, 2]
        assert traceparent.endswith("-00")


async def test_a_header_may_be_so_long() -> None:
    """Names, values, path and query may total `HEADER_BYTES`; one byte more gets 431."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def status(**scope: Any) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        whole = {"type": "http", "headers": [], "raw_path": b"", "query_string": b"", **scope}
        await Traced(app)(whole, None, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    half = b"x" * (HEADER_BYTES // 2)
    for parts in (
        {"headers": [(half, half)]},
        {"headers": [(b"", half)], "raw_path": half},
        {"raw_path": half, "query_string": half},
        {"headers": [(half, b""), (half, b"")]},
    ):
        assert await status(**parts) == 200, parts.keys()
        more = {**parts, "headers": [*parts.get("headers", []), (b"x", b"")]}  # type: ignore[misc]
        assert await status(**more) == 431, parts.keys()


def test_any_key_of_them_is_good() -> None:
    """Any configured key is accepted and nothing else; without keys every request is."""
    for key in KEYS:
        for word in ("Bearer", "bearer", "BEARER "):
            assert has_key(request_of({"authorization": f"{word} {key.decode()}"}), KEYS)
    wrong = [
        "",
        "Bearer",
        f"Bearer {KEYS[0].decode()}0",
        f"Bearer x {KEYS[0].decode()}",
        "Bearer é",
    ]
    for value in wrong:
        request = request_of({"authorization": value})
        assert not has_key(request, KEYS), value
        with pytest.raises(Refusal) as refused:
            check_key(request, KEYS)
        assert refused.value.status == 401
        check_key(request, ())


def test_what_is_said_of_a_body_is_looked_at_first() -> None:
    """Before the body is read, any JSON content type and a length up to the limit are accepted."""
    for kind in ("application/json", "application/json;charset=utf-8", "application/json ; x"):
        check_length(request_of({"content-type": kind, "content-length": "10"}), 10)
        check_length(request_of({"content-type": kind}), 10)
        with pytest.raises(Refusal) as refused:
            check_length(request_of({"content-type": kind, "content-length": "11"}), 10)
        assert refused.value.status == 413
    for kind in ("", "text/plain", "application/jsonp", "text/plain; application/json"):
        with pytest.raises(Refusal) as refused:
            check_length(request_of({"content-type": kind}), 10)
        assert refused.value.status == 415


async def test_a_body_is_counted_before_it_is_kept() -> None:
    """Each piece of a body is counted before it is kept, but not one that exceeds the limit."""
    counted: list[int] = []

    async def count(size: int) -> None:
        counted.append(size)

    assert await read_body(request_of({}, b"abc", b"", b"defg"), 7, count) == b"abcdefg"
    assert sum(counted) == 7
    counted.clear()
    with pytest.raises(Refusal) as refused:
        await read_body(request_of({}, b"abc", b"defg", b"h"), 6, count)
    assert (refused.value.status, counted) == (413, [3])
    with pytest.raises(ClientDisconnect):
        await read_body(request_of(), 6, count)


async def test_who_leaves_is_not_worked_for() -> None:
    """A disconnect cancels the work and waits for its end; a result in time is returned."""
    ended = asyncio.Event()

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    with pytest.raises(ClientDisconnect):
        await while_connected(request_of(), work())
    assert ended.is_set()

    async def done() -> str:
        return "done"

    stays = Request({"type": "http", "headers": []}, asyncio.Event().wait)  # type: ignore[arg-type]
    assert await while_connected(stays, done()) == "done"
    assert asyncio.all_tasks() == {asyncio.current_task()}
