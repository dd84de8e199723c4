"""A request before it is understood: its trace, its key, its body, and whether its caller stays."""

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client_lib.wire.messages import is_traceparent
from sidecar.gateway.refusals import Refusal

T = TypeVar("T")

HEADER_BYTES = 16 * 1024
"""The header of a request at most, its path included."""

_BEARER = re.compile(rb"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trace:
    """Whose work a request is part of, as W3C Trace Context writes it."""

    traceparent: str

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Return the caller's trace; a new one where it has none, or none that is valid."""
        given = [value.decode("latin-1") for name, value in headers if name == b"traceparent"]
        if len(given) == 1 and is_traceparent(given[0]):
            return cls(given[0])
        return cls(f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")

    @property
    def id(self) -> str:
        """What answers name: the `trace_id` of the daemon's events about the request."""
        return self.traceparent.split("-")[1]


class Traced:
    """An application whose every request has a `trace`, and its answer the id of that.

    A header that came whole is as long as one that did not may be.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, by ASGI."""
        trace = Trace.of(scope["headers"])
        scope["state"] = {**scope.get("state", {}), "trace": trace}

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = trace.id
            await send(message)

        too_long = _header_bytes(scope) > HEADER_BYTES
        answer = _too_long_a_header().response() if too_long else self._app
        await answer(scope, receive, send_named)


def _header_bytes(scope: Scope) -> int:
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return fields + len(scope["raw_path"]) + len(scope["query_string"])


def _too_long_a_header() -> Refusal:
    message = f"the request's header is longer than {HEADER_BYTES} bytes"
    return Refusal(431, message, code="header_too_large")


def check_key(request: Request, keys: Sequence[bytes]) -> None:
    """Raise `Refusal` (401) if there are `keys` and the request bears none of them."""
    if keys and not has_key(request, keys):
        raise Refusal(
            401,
            "no valid key: send `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def has_key(request: Request, keys: Sequence[bytes]) -> bool:
    """Whether the request bears one of `keys`."""
    bearer = _BEARER.fullmatch(request.headers.get("authorization", "").encode("latin-1"))
    given = bearer[1] if bearer else b""
    # All are compared, each in constant time: how long it takes tells nothing of them.
    return sum(hmac.compare_digest(given, key) for key in keys) > 0


def check_length(request: Request, most: int) -> None:
    """Raise `Refusal` before the body is read.

    413 for one that is said to be longer than `most` bytes, 415 for what is not said to be JSON.
    """
    # What else a page of some web site could have a browser send here without asking first.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "send `Content-Type: application/json`", code="unsupported_media_type")
    # Digits, and not many: h11 refuses others.
    if int(request.headers.get("content-length", 0)) > most:
        raise _too_long(most)


async def read_body(request: Request, most: int, count: Callable[[int], Awaitable[None]]) -> bytes:
    """Return the body, each piece of it once `count` has counted it.

    Of one that is longer than `most` bytes no more is kept. Raises `Refusal` (413) then, and
    `ClientDisconnect` where the caller leaves.
    """
    body = bytearray()
    async for piece in request.stream():
        if len(body) + len(piece) > most:
            raise _too_long(most)
        await count(len(piece))
        body += piece
    return bytes(body)


def _too_long(most: int) -> Refusal:
    message = f"a body of more than {most} bytes; send fewer texts at a time"
    return Refusal(413, message, code="too_large")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return what `work` comes to; cancel it and raise `ClientDisconnect` if the caller leaves.

    The body has been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_disconnect(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
