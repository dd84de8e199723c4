# ruff: noqa: ASYNC109 - a call's timeout covers reconnects, and is the same in both clients
"""The asyncio client."""

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
    """An asyncio client of the daemon at `path`; tasks of one event loop may share it.

    It works as `Client` does, with `await`, and raises the same exceptions; only `pipeline` is
    missing. Cancelling a call also cancels it in the daemon, and the client remains usable.

    Once its event loop is closed, which closes the connection, the client may be used on another
    loop, where it makes a new connection. Before that, a call there raises `RuntimeError`.

    Args:
        path: The daemon's Unix socket. Defaults to `client_lib.address.default_socket()`.
        timeout: Seconds for each call, from connecting to the last byte of the reply, retries
            included; sent to the daemon as the request's deadline. A call may set its own. None or
            infinity means no limit, but None for a call means this timeout.
        retries: Whether to retry until the deadline if the daemon restarts or is overloaded. If
            false, such a call raises `ConnectionLost`, `Draining` or `Overloaded` at once.
        expect_user: One more user, by name or number, whose daemon is trusted. Defaults to
            `$SIDECAR_DAEMON_USER`.

    Raises:
        TypeError: `timeout` is not a number.
        ValueError: `timeout` is not above 0.
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
        """Return one vector per text, for any number of texts.

        Texts are sent as requests of up to 256 texts, a few at a time.

        Args:
            texts: A string, or an ordered iterable of strings.
            model: Name of a model that the daemon serves. Defaults to its first embedding model.
            prompt_name: One of the model's prompts, prepended to each text. Without it and `role`,
                the model's default prompt applies, if it has one.
            role: "query" or "document": selects the model's prompt for that role if
                `prompt_name` is not given.
            normalize: Whether to scale vectors to length 1. Defaults to the model's setting.
            dimensions: How many leading dimensions to keep. Defaults to all.
            precision: Data type of the vectors: "float32", "float16", "int8" or "uint8" (a fixed
                range, for vectors of length 1), or one bit per dimension, eight of them packed
                into an int8 ("binary") or uint8 ("ubinary").
            truncate: If false, reject a text that is longer than the model accepts instead of
                truncating it.
            priority: "interactive", or "bulk" to let interactive requests of any process go first.
            traceparent: W3C Trace Context whose trace id the daemon's events about the request
                carry.
            timeout: Seconds for each request. Defaults to the client's timeout.

        Returns:
            An array [n, d], in float32 unless `precision` says otherwise; [d] for a single string,
            (0, 0) for no texts.

        Raises:
            TypeError: `texts` are not strings, or `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            BadRequest: An option is invalid, or a text, named by its index, is not valid Unicode or
                too long.
            UnknownModel: The daemon does not serve the model, or its model changed during the call.
            SidecarError: As described for the class.
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
        """Return the vectors of `texts`, with what the daemon reports about the request.

        All texts are sent as one request, so the daemon's `max_inputs` limits their number.

        Args:
            texts: A string, or an ordered iterable of strings.
            model: Name of a model that the daemon serves. Defaults to its first embedding model.
            prompt_name: One of the model's prompts, prepended to each text. Without it and `role`,
                the model's default prompt applies, if it has one.
            role: "query" or "document": selects the model's prompt for that role if
                `prompt_name` is not given.
            normalize: Whether to scale vectors to length 1. Defaults to the model's setting.
            dimensions: How many leading dimensions to keep. Defaults to all.
            precision: Data type of the vectors: "float32", "float16", "int8" or "uint8" (a fixed
                range, for vectors of length 1), or one bit per dimension, eight of them packed
                into an int8 ("binary") or uint8 ("ubinary").
            truncate: If false, reject a text that is longer than the model accepts instead of
                truncating it.
            priority: "interactive", or "bulk" to let interactive requests of any process go first.
            traceparent: W3C Trace Context whose trace id the daemon's events about the request
                carry.
            timeout: Seconds for the call. Defaults to the client's timeout.

        Returns:
            The reply, with `vectors` [n, d] of type `precision`, also for a single string.

        Raises:
            TypeError: `texts` are not strings, or `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            BadRequest: An option is invalid, or a text, named by its index, is not valid Unicode or
                too long.
            SidecarError: As described for the class.
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
        """Return `documents` ordered by their relevance to `query`, most relevant first.

        Args:
            query: What to compare the documents to.
            documents: An ordered iterable of strings.
            top_n: How many of the best results to return. Defaults to all.
            model: Name of a model that the daemon serves. Defaults to its first reranker or, if it
                has none, its first embedding model.
            truncate: If false, reject a text that is longer than the model accepts instead of
                truncating it.
            priority: "interactive", or "bulk" to let interactive requests of any process go first.
            traceparent: W3C Trace Context whose trace id the daemon's events about the request
                carry.
            timeout: Seconds for the call. Defaults to the client's timeout.

        Returns:
            The reply, whose `method` tells whether a cross-encoder or an embedding model scored the
            documents.

        Raises:
            TypeError: The query or the documents are not strings, or `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            BadRequest: An option is invalid, or a text is not valid Unicode or too long; a document
                is named by its index.
            SidecarError: As described for the class.
        """
        operation = operations.rerank(
            query, documents, top_n=top_n, model=model, truncate=truncate, priority=priority,
            traceparent=traceparent,
        )  # fmt: skip
        return await self._ask(operation, timeout)

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the daemon serves, and its current state.

        Args:
            timeout: Seconds for the call. Defaults to the client's timeout.

        Returns:
            The daemon's status.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            SidecarError: As described for the class.
        """
        return await self._ask(operations.status(), timeout)

    async def metrics(
        self, form: MetricsFormat = "openmetrics", *, timeout: float | None = None
    ) -> MetricsReply:
        """Return the daemon's metrics, for a monitoring system.

        Args:
            form: "openmetrics", which Prometheus reads over HTTP, or "prometheus", the older text
                format, which the node exporter's textfile collector accepts.
            timeout: Seconds for the call. Defaults to the client's timeout.

        Returns:
            The metrics as text, and their content type.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            BadRequest: `form` is unknown.
            SidecarError: As described for the class.
        """
        return await self._ask(operations.metrics(form), timeout)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the daemon took to answer an empty request.

        Args:
            timeout: Seconds for the call. Defaults to the client's timeout.

        Returns:
            The round-trip time in seconds.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            SidecarError: As described for the class.
        """
        begun = perf_counter()
        await self._ask(operations.ping(), timeout)
        return perf_counter() - begun

    async def close(self) -> None:
        """Close the connection. Calls in flight and later calls raise `ClientClosed`.

        Raises:
            RuntimeError: The client is in use on another event loop that is still open.
        """
        self._leave_closed_loop()
        self._closed = True
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
            raise ClientClosed("this client is closed; create a new one")
        self._leave_closed_loop()
        if self._connection is None:
            self._lasting = _while_loop_lasts(
                AsyncReconnectingConnection(self._path, self._trust, retries=self._retries)
            )
            self._loop, self._connection = asyncio.get_running_loop(), await anext(self._lasting)
        return self._connection

    def _leave_closed_loop(self) -> None:
        """Drop the connection of a closed loop. Raises `RuntimeError` if its loop is still open."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return
        if not self._loop.is_closed():
            raise RuntimeError(
                "this AsyncClient is in use on another event loop that is still open: create one "
                "AsyncClient per event loop"
            )
        self._loop = self._connection = self._lasting = None


async def _while_loop_lasts(
    connection: AsyncReconnectingConnection,
) -> AsyncGenerator[AsyncReconnectingConnection, None]:
    # asyncio closes an async generator when its loop ends, or when it is no longer referenced.
    try:
        yield connection
    finally:
        await connection.close()
