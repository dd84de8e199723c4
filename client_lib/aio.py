# ruff: noqa: ASYNC109 - a call's timeout covers reconnects, and is the same in both clients
"""The client for asyncio."""

import asyncio
import math
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from client_lib import operations
from client_lib.address import default_socket
from client_lib.aio_connection import TaskCall
from client_lib.aio_reconnect import AsyncReconnectingConnection
from client_lib.calls import call_ids, seconds_of
from client_lib.encoding import WINDOW, Encoding
from client_lib.operations import Operation
from client_lib.trust import Trust
from client_lib.wire.errors import ClientClosed, SidecarError
from client_lib.wire.messages import MetricsFormat, Precision, Priority
from client_lib.wire.replies import EmbedReply, MetricsReply, RerankReply
from client_lib.wire.roles import Role

T = TypeVar("T")


class AsyncClient:
    """Embeds and reranks by way of the daemon at `path`; tasks of one event loop may share it.

    All but `pipeline` is as in `Client`, with `await`. Cancelling a call cancels it in the daemon
    too, and leaves the client as usable as before. Once its event loop is closed, which closes the
    connection, another loop may use it, by a connection of its own; before that a call there is a
    `RuntimeError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float | None = 30.0,
        retries: bool = True,
        expect_user: str | int | None = None,
    ) -> None:
        self._path = os.fspath(path or default_socket())
        self._trust = Trust.of(expect_user)
        self._timeout = seconds_of(timeout)
        self._retries = retries
        self._ids = call_ids()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: AsyncReconnectingConnection | None = None
        self._lasting: AsyncGenerator[AsyncReconnectingConnection, None] | None = None
        self._closed = False

    async def encode(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        prompt_name: str | None = None,
        role: Role | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        truncate: bool = True,
        priority: Priority = "interactive",
        traceparent: str | None = None,
        timeout: float | None = None,
    ) -> NDArray[Any]:
        """Return one vector a text: [n, d], [d] for one string, (0, 0) for no texts.

        Any number of texts: they travel as requests of up to 256, a few at a time, and
        `timeout` (seconds) bounds each of those. The options are those of `embed`, and so is
        what the vectors are made of: float32 unless `precision` says otherwise.
        """
        encoding = Encoding(
            texts, model=model, prompt_name=prompt_name, role=role, normalize=normalize,
            dimensions=dimensions, precision=precision, truncate=truncate, priority=priority,
            traceparent=traceparent,
        )  # fmt: skip
        in_flight: deque[tuple[Operation[None], TaskCall]] = deque()
        try:
            for operation in encoding.operations():
                if len(in_flight) == WINDOW:
                    await self._finish(*in_flight.popleft())
                in_flight.append((operation, await self._begin(operation, timeout)))
            while in_flight:
                await self._finish(*in_flight.popleft())
        finally:
            for _, call in in_flight:
                if call.connection is not None:
                    call.connection.abandon(call)
        return encoding.vectors

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str | None = None,
        prompt_name: str | None = None,
        role: Role | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        truncate: bool = True,
        priority: Priority = "interactive",
        traceparent: str | None = None,
        timeout: float | None = None,
    ) -> EmbedReply:
        """Return the vectors of `texts`, [n, d], with what the daemon says about them.

        One request: the daemon's `max_inputs` bounds it. `prompt_name` puts one of the model's
        prompts before each text, `role` the one that the model has for each "query" or "document",
        where no name is given; `normalize` (by default what the model says) scales vectors
        to length 1; `dimensions` keeps the first so many; `precision` is what they come as:
        float32, float16, int8 or uint8 (of a fixed range, for vectors of length 1), or a bit a
        dimension, eight to an int8 ("binary") or a uint8 ("ubinary"). `truncate=False` refuses a
        text that is longer than the model takes (`BadRequest` with its index) instead of cutting
        it; `priority="bulk"` lets interactive requests, of any process, go first. `traceparent`
        (W3C Trace Context) puts the caller's trace id into the daemon's events about the request.
        """
        operation = operations.embed(
            texts, model=model, prompt_name=prompt_name, role=role, normalize=normalize,
            dimensions=dimensions, precision=precision, truncate=truncate, priority=priority,
            traceparent=traceparent,
        )  # fmt: skip
        return await self._ask(operation, timeout)

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        model: str | None = None,
        truncate: bool = True,
        priority: Priority = "interactive",
        traceparent: str | None = None,
        timeout: float | None = None,
    ) -> RerankReply:
        """Return `documents` by their relevance to `query`, the most relevant first.

        `top_n` keeps that many. `method` says whether a cross-encoder or the embedding model
        scored them.
        """
        operation = operations.rerank(
            query, documents, top_n=top_n, model=model, truncate=truncate, priority=priority,
            traceparent=traceparent,
        )  # fmt: skip
        return await self._ask(operation, timeout)

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the daemon is, and how it is."""
        return await self._ask(operations.status(), timeout)

    async def metrics(
        self, form: MetricsFormat = "openmetrics", *, timeout: float | None = None
    ) -> MetricsReply:
        """Return how the daemon is, in figures for a monitor.

        "openmetrics" is what Prometheus reads over HTTP; "prometheus" the older text, which the
        node exporter's textfile collector takes.
        """
        return await self._ask(operations.metrics(form), timeout)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the daemon took to answer nothing, in seconds."""
        begun = perf_counter()
        await self._ask(operations.ping(), timeout)
        return perf_counter() - begun

    async def close(self) -> None:
        """Close the connection. Calls in flight and calls to come raise `ClientClosed`."""
        self._closed = True
        self._leave_closed_loop()
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _ask(self, operation: Operation[T], timeout: float | None) -> T:
        return await self._finish(operation, await self._begin(operation, timeout))

    async def _begin(self, operation: Operation[Any], timeout: float | None) -> TaskCall:
        connection = await self._open_connection()
        call = self._call(operation, timeout)
        await self._in_time(operation, call, connection, connection.begin(call))
        return call

    async def _finish(self, operation: Operation[T], call: TaskCall) -> T:
        connection = await self._open_connection()
        return operation.read(
            await self._in_time(operation, call, connection, connection.finish(call))
        )

    def _call(self, operation: Operation[Any], timeout: float | None) -> TaskCall:
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        request = operation.request(id=next(self._ids))
        deadline = asyncio.get_running_loop().time() + seconds
        return TaskCall(request, deadline, seconds)

    async def _in_time(
        self,
        operation: Operation[Any],
        call: TaskCall,
        connection: AsyncReconnectingConnection,
        work: Awaitable[T],
    ) -> T:
        try:
            async with asyncio.timeout_at(None if math.isinf(call.deadline) else call.deadline):
                return await work
        except SidecarError as error:  # some are TimeoutErrors, too
            call.sign(error)
            operation.place(error)
            raise
        except TimeoutError:
            late = connection.late(call)
            call.sign(late)
            raise late from None

    async def _open_connection(self) -> AsyncReconnectingConnection:
        if self._closed:
            raise ClientClosed("this client is closed; make another")
        self._leave_closed_loop()
        if self._connection is None:
            self._lasting = _while_loop_lasts(
                AsyncReconnectingConnection(self._path, self._trust, retries=self._retries)
            )
            self._loop, self._connection = asyncio.get_running_loop(), await anext(self._lasting)
        return self._connection

    def _leave_closed_loop(self) -> None:
        """Forget the connection of a loop that is closed, and refuse to share one that is not."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return
        if not self._loop.is_closed():
            raise RuntimeError(
                "this AsyncClient is in use on another event loop, which is not closed: make an "
                "AsyncClient for each loop"
            )
        self._loop = self._connection = self._lasting = None


async def _while_loop_lasts(
    connection: AsyncReconnectingConnection,
) -> AsyncGenerator[AsyncReconnectingConnection, None]:
    # asyncio closes an async generator when its loop ends, and when nobody holds it any more.
    try:
        yield connection
    finally:
        await connection.close()
