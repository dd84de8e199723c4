"""The client for threads."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from client_lib import operations
from client_lib.address import default_socket
from client_lib.calls import call_ids, seconds_of
from client_lib.encoding import WINDOW, Encoding
from client_lib.operations import Operation
from client_lib.sync_connection import ThreadCall
from client_lib.sync_reconnect import ReconnectingConnection
from client_lib.trust import Trust
from client_lib.wire.errors import CallTimeout, ClientClosed, SidecarError
from client_lib.wire.messages import MetricsFormat, Precision, Priority
from client_lib.wire.replies import EmbedReply, MetricsReply, RerankReply
from client_lib.wire.roles import Role

T = TypeVar("T")


class Client:
    """Embeds and reranks by way of the daemon at `path`; threads may share it.

    `path` is its Unix socket, by default that of `client_lib.address.default_socket`.
    `timeout` (seconds) bounds each call from connecting to the last byte, reconnects included,
    unless the call brings its own; None, or infinity, is no limit (of a call None is the
    client's). The daemon is told. Where the daemon goes away during a call,
    or is overloaded, the client comes back, in the latter case after the pause that it is asked
    to make, and asks again until then; with `retries=False` it raises `ConnectionLost` or
    `Overloaded` at once.

    A daemon is asked if it is root's or this process's own user's, or `expect_user`'s, a name or a
    number, by default `$SIDECAR_DAEMON_USER`; another's raises `UntrustedDaemon` and is sent
    nothing. That is seen to once a connection.

    Every call may raise a subclass of `SidecarError`: `ConnectionLost` if no daemon could be
    reached in time, `CallTimeout` if it did not answer in time, a `ReplyError` if it refused;
    `DeadlineExceeded` is the daemon's word that the time is or would be up, and like
    `CallTimeout` a `TimeoutError`.
    After a fork the child makes a connection of its own.
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
        self._connections: dict[int, ReconnectingConnection] = {}
        self._closed = False

    def encode(
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
        deque(self.pipeline(encoding.operations(), timeout=timeout), maxlen=0)
        return encoding.vectors

    def pipeline(
        self,
        operations: Iterable[Operation[T]],
        *,
        window: int = WINDOW,
        timeout: float | None = None,
    ) -> Generator[T, None, None]:
        """Yield what each of `operations` comes to, in order; up to `window` are in flight.

        `timeout` (seconds) bounds each. Whatever is in flight when the iterator ends is cancelled.
        """
        in_flight: deque[tuple[Operation[T], ThreadCall]] = deque()
        try:
            for operation in operations:
                if len(in_flight) == window:
                    yield self._finish(*in_flight.popleft())
                in_flight.append((operation, self._begin(operation, timeout)))
            while in_flight:
                yield self._finish(*in_flight.popleft())
        finally:
            for _, call in in_flight:
                if call.connection is not None:
                    call.connection.abandon(call)

    def embed(
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
        return self._ask(operation, timeout)

    def rerank(
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
        return self._ask(operation, timeout)

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return what the daemon is, and how it is."""
        return self._ask(operations.status(), timeout)

    def metrics(
        self, form: MetricsFormat = "openmetrics", *, timeout: float | None = None
    ) -> MetricsReply:
        """Return how the daemon is, in figures for a monitor.

        "openmetrics" is what Prometheus reads over HTTP; "prometheus" the older text, which the
        node exporter's textfile collector takes.
        """
        return self._ask(operations.metrics(form), timeout)

    def ping(self, *, timeout: float | None = None) -> float:
        """Return how long the daemon took to answer nothing, in seconds."""
        begun = perf_counter()
        self._ask(operations.ping(), timeout)
        return perf_counter() - begun

    def close(self) -> None:
        """Close the connection. Calls in flight and calls to come raise `ClientClosed`."""
        self._closed = True
        self._disown_others()
        for connection in self._connections.values():
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, operation: Operation[T], timeout: float | None) -> T:
        return self._finish(operation, self._begin(operation, timeout))

    def _begin(self, operation: Operation[Any], timeout: float | None) -> ThreadCall:
        connection = self._open_connection()
        seconds = self._timeout if timeout is None else seconds_of(timeout)
        request = operation.request(id=next(self._ids))
        call = ThreadCall(request, monotonic() + seconds, seconds)
        try:
            connection.begin(call)
        except SidecarError as error:
            call.sign(error)
            raise
        return call

    def _finish(self, operation: Operation[T], call: ThreadCall) -> T:
        try:
            body = self._open_connection().finish(call)
        except CallTimeout:
            late = CallTimeout(f"no answer from {self._path} within {call.timeout:g} s")
            call.sign(late)
            raise late from None
        except SidecarError as error:
            call.sign(error)
            operation.place(error)
            raise
        return operation.read(body)

    def _open_connection(self) -> ReconnectingConnection:
        if self._closed:
            raise ClientClosed("this client is closed; make another")
        pid = os.getpid()
        if (connection := self._connections.get(pid)) is None:
            self._disown_others()
            # `setdefault` is atomic: threads that come here together get the same line.
            connection = self._connections.setdefault(
                pid, ReconnectingConnection(self._path, self._trust, retries=self._retries)
            )
        return connection

    def _disown_others(self) -> None:
        # What a fork has copied from the parent is the parent's.
        for pid in set(self._connections) - {os.getpid()}:
            if connection := self._connections.pop(pid, None):
                connection.disown()
