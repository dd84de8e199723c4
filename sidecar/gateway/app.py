"""The ASGI application: the routes, from the HTTP request to the daemon and back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

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
from sidecar.gateway.hosts import Addressed, Hosts
from sidecar.gateway.incoming import (
    Traced,
    check_key,
    check_length,
    has_key,
    read_body,
    while_connected,
)
from sidecar.gateway.refusals import Refusal, told
from sidecar.gateway.room import Body, Room, Stalled
from sidecar.gateway.sending import Held, Json
from sidecar.gateway.settings import Listener, Settings

_SERVING = {"serving", "reloading"}
_OPENMETRICS = "application/openmetrics-text"
# Timeout for status and metrics, once the daemon accepts connections.
_LOOK_SECONDS = 5.0
# A request past its deadline still gets this much, so that the client raises its own timeout.
_LEAST_SECONDS = 0.001
_CLIENT_CLOSED_REQUEST = 499  # nginx's code; nobody is left to read it

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Gateway:
    """The routes and the two connections to the daemon behind them.

    All inference requests share one connection, which waits for a daemon that restarts. Status and
    metrics use the other, which fails at once.
    """

    def __init__(self, settings: Settings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._asking = AsyncClient(settings.daemon, timeout=settings.timeout)
        self._looking = AsyncClient(settings.daemon, timeout=_LOOK_SECONDS, retries=False)
        self._room = Room(settings.held_bytes)
        self._turns = asyncio.Semaphore(settings.max_in_flight)  # FIFO

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        embeddings = Held(partial(self._answer, EmbeddingsBody, self._embed))
        rerank = Held(partial(self._answer, RerankBody, self._rerank))
        routes = [
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/rerank", rerank, methods=["POST"]),
            # Cohere's newer client uses /v2; its older one and Jina's use /v1.
            Route("/v2/rerank", rerank, methods=["POST"]),
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
        app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)
        if (names := self._listener.names) is not None:
            app = Addressed(app, Hosts(names, any_address=self._listener.any_address))
        return Traced(app)

    async def close(self) -> None:
        """Close the connections to the daemon."""
        await self._asking.close()
        await self._looking.close()

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            check_key(request, self._settings.keys)
            return await endpoint(request)

        return guarded

    @asynccontextmanager
    async def _answer(
        self,
        kind: type[B],
        ask: Callable[[B, Request, float], Awaitable[dict[str, Any]]],
        request: Request,
    ) -> AsyncIterator[Response]:
        """Read a body of `kind` and yield the answer of `ask`, all before the deadline."""
        check_key(request, self._settings.keys)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.timeout
        with self._room.hold() as held:
            async with self._by(deadline, "its body is incomplete"):
                body = parse(kind, await self._read(request, held))
            async with self._turn(deadline):
                with told(body.texts):
                    work = ask(body, request, max(_LEAST_SECONDS, deadline - loop.time()))
                    answer = await while_connected(request, work)
                yield Json(answer)

    async def _read(self, request: Request, held: Body) -> bytes:
        """Return the body of `request`, charging each piece to `held` as it arrives."""
        check_length(request, self._settings.max_body_bytes)
        try:
            async with self._room.arriving(held):
                return await read_body(
                    request, self._settings.max_body_bytes, partial(self._room.add, held)
                )
        except Stalled:
            message = "the request body arrived too slowly while others waited for its memory"
            raise Refusal(408, message, code="request_timeout") from None

    @asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[None]:
        """Hold one of the `max_in_flight` slots until the block ends."""
        async with self._by(deadline, "too many requests are ahead of it"):
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _by(self, deadline: float, reason: str) -> AsyncIterator[None]:
        """Raise `Refusal` (408), giving `reason`, if the block is not done by `deadline`."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            message = f"no answer within {self._settings.timeout:g} s: {reason}"
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
            return Json(replies.models(await self._looking.status()))

    async def _metrics(self, request: Request) -> Response:
        newer = _OPENMETRICS in request.headers.get("accept", "")
        with told():
            reply = await self._looking.metrics("openmetrics" if newer else "prometheus")
        return Response(reply.text, headers={"content-type": reply.content_type})

    async def _health(self, request: Request) -> Response:
        """Return the daemon's health in one word; only callers with a key get the reason."""
        word, reason = await self._state()
        give_reason = reason is not None and has_key(request, self._settings.keys)
        content = {"status": word} | ({"reason": reason} if give_reason else {})
        return Json(content, 200 if reason is None else 503)

    async def _state(self) -> tuple[str, str | None]:
        """Return the daemon's health, and what is wrong, or None if it is "ok"."""
        try:
            status = await self._looking.status()
        except SidecarError as error:
            return "unavailable", str(error)
        if status["state"] not in _SERVING:
            return "unavailable", f"the daemon is not serving: it is {status['state']}"
        if not status["healthy"]:
            return "unhealthy", "inference makes no progress"
        return "ok", None


async def _refuse(_: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _refuse_unknown(request: Request, error: HTTPException) -> Response:
    """Answer a request for an unknown path, or with a method that its path does not support."""
    message = f"{request.method} {request.url.path}: {error.detail}"
    return Refusal(error.status_code, message, code="not_found", headers=error.headers).response()


async def _leave(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer 500 for a bug in the gateway, and log it with its traceback."""
    log.error(
        "gateway.failed",
        path=request.url.path,
        trace_id=request.state.trace.id,
        error=type(error).__name__,
        traceback=trace(error),
    )
    message = f"the gateway failed with {type(error).__name__}"
    # uvicorn closes the connection after such an error, so the caller must not reuse it.
    close = {"connection": "close"}
    return Refusal(500, message, code="gateway_failed", headers=close).response()
