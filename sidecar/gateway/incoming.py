"""A request before it is parsed: its trace, API key and body, and whether its caller is there."""

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
"""Longest header of a request, its path included."""

_BEARER = re.compile(rb"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a request belongs to, as a W3C Trace Context `traceparent`."""

    traceparent: str

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Return the caller's trace, or a new one if it sent none or an invalid one."""
        given = [value.decode("latin-1") for name, value in headers if name == b"traceparent"]
        if len(given) == 1 and is_traceparent(given[0]):
            return cls(given[0])
        return cls(f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")

    @property
    def id(self) -> str:
        """The trace id: `x-request-id` of the answer, `trace_id` in the daemon's events."""
        return self.traceparent.split("-")[1]


class Traced:
    """ASGI middleware that gives each request a `trace` and its answer the trace id.

    It also applies the header limit to headers that arrived in one piece, which h11 does not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI request."""
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
    """Raise `Refusal` (401) if `keys` are configured and the request carries none of them."""
    if keys and not has_key(request, keys):
        raise Refusal(
            401,
            "missing or invalid API key: send `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def has_key(request: Request, keys: Sequence[bytes]) -> bool:
    """Whether the request carries one of `keys`."""
    bearer = _BEARER.fullmatch(request.headers.get("authorization", "").encode("latin-1"))
    given = bearer[1] if bearer else b""
    # Compare with every key, each in constant time: the duration reveals nothing about them.
    return sum(hmac.compare_digest(given, key) for key in keys) > 0


def check_length(request: Request, most: int) -> None:
    """Check the headers that describe the body, before it is read.

    Raises `Refusal`: 413 if its declared length exceeds `most` bytes, 415 if it is not declared as
    JSON.
    """
    # Any page can make a browser send other content types here without a CORS preflight.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "send `Content-Type: application/json`", code="unsupported_media_type")
    # h11 has checked that it is a short run of digits.
    if int(request.headers.get("content-length", 0)) > most:
        raise _too_long(most)


async def read_body(request: Request, most: int, count: Callable[[int], Awaitable[None]]) -> bytes:
    """Return the body, awaiting `count` with the size of each piece before keeping it.

    Raises `Refusal` (413) as soon as the body exceeds `most` bytes, and `ClientDisconnect` if the
    caller disconnects.
    """
    body = bytearray()
    async for piece in request.stream():
        if len(body) + len(piece) > most:
            raise _too_long(most)
        await count(len(piece))
        body += piece
    return bytes(body)


def _too_long(most: int) -> Refusal:
    message = f"the body is longer than {most} bytes: send fewer texts at a time"
    return Refusal(413, message, code="too_large")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`; cancel it if the caller disconnects first.

    The body must have been read. Raises `ClientDisconnect` if the caller disconnects.
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
