"""Sending answers: a request's resources are held until the caller has read its answer."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

TAKE_SECONDS = 10.0
"""How long a caller may go without reading anything of what was written to it."""

_PIECE_BYTES = 64 * 1024
_LEAST_PACE = 64 * 1024  # bytes per second


@dataclass(frozen=True, slots=True)
class Held:
    """An endpoint that stays inside the context of `answering` until its response is sent."""

    answering: Callable[[Request], AbstractAsyncContextManager[Response]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI request."""
        async with self.answering(Request(scope, receive, send)) as response:
            await response(scope, receive, send)


class Json(Response):
    """A JSON response sent in pieces, each once the previous one has been accepted.

    A caller that reads too slowly gets no more of it; the server then closes the connection, as it
    does for every incomplete answer.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return `content` as JSON."""
        return msgspec.json.encode(content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the response over ASGI."""
        try:
            async with asyncio.timeout(TAKE_SECONDS + len(self.body) / _LEAST_PACE):
                await self._send(send)
        except TimeoutError:
            return

    async def _send(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        for begin in range(0, len(self.body), _PIECE_BYTES):
            piece = bytes(self.body[begin : begin + _PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
