"""Sending an answer to a caller that reads it, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from sidecar.gateway import sending
from sidecar.gateway.sending import Held, Json

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "headers": []}


async def receive() -> Any:
    raise AssertionError("nothing is to be read")


async def test_what_an_answer_is_made_of_is_held_until_it_was_sent() -> None:
    """A request's resources are held until its answer is sent, so slow readers wait."""
    happened = []

    @asynccontextmanager
    async def answering(_: Request) -> AsyncIterator[Response]:
        yield Json({})
        happened.append("let go")

    async def send(message: Any) -> None:
        happened.append(message["type"])

    await Held(answering)(SCOPE, receive, send)
    assert happened[-2:] == ["http.response.body", "let go"]


async def test_a_long_answer_is_sent_piece_by_piece() -> None:
    """A long answer is sent in pieces of at most 64 KiB that together are the answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    content = ["a" * 1000] * 1000
    await Json(content)(SCOPE, receive, send)
    pieces = [message["body"] for message in sent[1:]]
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= 64 * 1024
    assert json.loads(b"".join(pieces)) == content
    assert [message.get("more_body", False) for message in sent[1:]][-2:] == [True, False]
    assert (b"content-length", str(sum(map(len, pieces))).encode()) in sent[0]["headers"]


async def test_an_answer_that_is_not_taken_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is not read in time is abandoned without an error."""
    monkeypatch.setattr(sending, "TAKE_SECONDS", 0.0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    await Json({})(SCOPE, receive, send)


async def test_a_longer_answer_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer gets one more second for each 64 KiB."""
    monkeypatch.setattr(sending, "TAKE_SECONDS", 0.0)
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        await asyncio.sleep(0)
        sent += len(message.get("body", b""))

    await Json("x" * 10_000_000)(SCOPE, receive, send)
    assert sent == 10_000_002


async def test_a_pieces_end_is_the_next_ones_begin() -> None:
    """The pieces of an answer of any length join without gap or overlap."""
    for length in (0, 64 * 1024 - 2, 64 * 1024 - 1, 128 * 1024 - 2):
        pieces: list[bytes] = []

        async def send(message: Any, pieces: list[bytes] = pieces) -> None:
            pieces.append(message.get("body", b""))

        await Json("x" * length)(SCOPE, receive, send)
        assert b"".join(pieces) == b'"' + b"x" * length + b'"'
        assert max(map(len, pieces)) <= 64 * 1024
