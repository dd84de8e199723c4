"""The application: each path, from the request to the daemon and back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from client_lib import AsyncClient, SidecarError
from sidecar.events import log, trace
from sidecar.gateway import replies
from sidecar.gateway.bodies import B, EmbeddingsBody, RerankBody, parse
from sidecar.gateway.incoming import Traced, check_key, length_of, read_body, while_connected
from sidecar.gateway.refusals import Refusal, told
from sidecar.gateway.room import Room
from sidecar.gateway.settings import Settings

_SERVING = {"serving", "reloading"}
_OPENMETRICS = "application/openmetrics-text"
# How long a daemon that listens may take to say how it is.
_LOOK_SECONDS = 5.0
# What is left at least to a request whose time is up: the client says so, in its own words.
_LEAST_SECONDS = 0.001
_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is left to read it

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Gateway:
    """The paths, and the two connections to the daemon behind them.

    Requests share one connection, and wait for a daemon that restarts. What asks how the daemon
    is has the other one, and waits for nobody.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asking = AsyncClient(settings.daemon, timeout=settings.timeout)
        self._looking = AsyncClient(settings.daemon, timeout=_LOOK_SECONDS, retries=False)
        self._room = Room(settings.held_bytes, settings.max_in_flight)

    def app(self) -> ASGIApp:
        """Return the application, for ASGI."""
        embeddings = partial(self._answer, EmbeddingsBody, self._embed)
        rerank = partial(self._answer, RerankBody, self._rerank)
        routes = [
            Route("/v1/embeddings", self._guarded(embeddings), methods=["POST"]),
            Route("/v1/rerank", self._guarded(rerank), methods=["POST"]),
            # Where Cohere's newer client asks; the older one and Jina's ask at /v1.
            Route("/v2/rerank", self._guarded(rerank), methods=["POST"]),
            Route("/v1/models", self._guarded(self._models)),
            Route("/metrics", self._guarded(self._metrics)),
            Route("/health", self._health),
        ]
        handlers: dict[Any, Any] = {
            Refusal: _refuse,
            HTTPException: _refuse_unknown,
            ClientDisconnect: _leave,
            Exception: _fail,
        }
        return Traced(Starlette(routes=routes, exception_handlers=handlers))

    async def close(self) -> None:
        """Close the connections to the daemon."""
        await self._asking.close()
        await self._looking.close()

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            check_key(request, self._settings.keys)
            return await endpoint(request)

        return guarded

    async def _answer(
        self,
        kind: type[B],
        ask: Callable[[B, Request, float], Awaitable[dict[str, Any]]],
        request: Request,
    ) -> Response:
        """Read a body of `kind` and return what `ask` makes of it, all of it in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.timeout
        length = length_of(request, self._settings.max_body_bytes)
        async with self._by(deadline, "too much came before it"):
            taken = await self._room.take(length)
        try:
            async with self._by(deadline, "its body did not arrive whole"):
                body = parse(kind, await read_body(request, length))
            with told(body.texts):
                work = ask(body, request, max(_LEAST_SECONDS, deadline - loop.time()))
                return _json(await while_connected(request, work))
        finally:
            self._room.give(taken)

    @asynccontextmanager
    async def _by(self, deadline: float, reason: str) -> AsyncIterator[None]:
        """Refuse a request (408) that is not read by `deadline`, which is for `reason`."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            message = f"the request was not read within {self._settings.timeout:g} s: {reason}"
            raise Refusal(408, message, code="request_timeout") from None

    async def _embed(self, body: EmbeddingsBody, request: Request, left: float) -> dict[str, Any]:
        reply = await self._asking.embed(
            body.input,
            model=body.model,
            prompt_name=body.prompt_name,
            role=body.role,
            normalize=body.normalize,
            dimensions=body.dimensions,
            truncate=body.truncate,
            priority=body.priority,
            traceparent=request.state.trace.traceparent,
            timeout=left,
        )
        return replies.embeddings(reply, body.encoding_format)

    async def _rerank(self, body: RerankBody, request: Request, left: float) -> dict[str, Any]:
        documents = [each if isinstance(each, str) else each.text for each in body.documents]
        reply = await self._asking.rerank(
            body.query,
            documents,
            top_n=body.top_n,
            model=body.model,
            truncate=body.truncate,
            priority=body.priority,
            traceparent=request.state.trace.traceparent,
            timeout=left,
        )
        repeated = documents if body.return_documents else None
        return replies.rerank(reply, repeated, request.state.trace.id)

    async def _models(self, _: Request) -> Response:
        with told():
            return _json(replies.models(await self._looking.status()))

    async def _metrics(self, request: Request) -> Response:
        newer = _OPENMETRICS in request.headers.get("accept", "")
        with told():
            reply = await self._looking.metrics("openmetrics" if newer else "prometheus")
        return Response(reply.text, headers={"content-type": reply.content_type})

    async def _health(self, _: Request) -> Response:
        try:
            status = await self._looking.status()
        except SidecarError as error:
            return _json({"status": "unavailable", "reason": str(error)}, 503)
        if status["state"] not in _SERVING:
            return _json({"status": status["state"], "reason": "the daemon does not serve"}, 503)
        if not status["healthy"]:
            return _json({"status": "unhealthy", "reason": "texts do not come to their end"}, 503)
        return _json({"status": "ok"})


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _refuse(_: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _refuse_unknown(request: Request, error: HTTPException) -> Response:
    """Answer a path that there is not, or a method that it does not have."""
    message = f"{request.method} {request.url.path}: {error.detail}"
    return Refusal(error.status_code, message, code="not_found", headers=error.headers).response()


async def _leave(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer for a fault of the gateway's own, and tell the operator."""
    log.error(
        "gateway.failed",
        path=request.url.path,
        trace_id=request.state.trace.id,
        error=type(error).__name__,
        traceback=trace(error),
    )
    message = f"the gateway failed with {type(error).__name__}"
    # uvicorn closes it after such an error: the caller should not send more.
    close = {"connection": "close"}
    return Refusal(500, message, code="gateway_failed", headers=close).response()
