"""The blocking client, for threads."""

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
    """A blocking client of the daemon at `path`; threads may share it.

    It connects with the first call. If the daemon restarts or is overloaded during a call, the
    client retries until the call's deadline, honouring `retry_after_ms`. After a fork, the child
    makes its own connection.

    Only a daemon of root, of this process's own user or of `expect_user` is trusted. This is
    checked for each connection, before anything is sent.

    Every call may raise a subclass of `SidecarError`: `ConnectionLost` if no daemon could be
    reached in time, `UntrustedDaemon` if another user runs it, `CallTimeout` if it did not answer
    in time, `ClientClosed` after `close`, or a `ReplyError` if it rejected the request. One of the
    latter is `DeadlineExceeded`, if the deadline has passed or cannot be met; like `CallTimeout`,
    it is also a `TimeoutError`.

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
        deque(self.pipeline(encoding.operations(), timeout=timeout), maxlen=0)
        return encoding.vectors

    def pipeline(
        self,
        operations: Iterable[Operation[T]],
        *,
        window: int = WINDOW,
        timeout: float | None = None,
    ) -> Generator[T, None, None]:
        """Run `operations`, and yield their results in order.

        Operations that are still in flight when the iterator ends are cancelled.

        Args:
            operations: Operations, as created by the functions of `client_lib.operations`.
            window: How many requests to keep in flight.
            timeout: Seconds for each operation. Defaults to the client's timeout.

        Yields:
            The result of each operation.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is not above 0.
            SidecarError: As described for the class.
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
        return self._ask(operation, timeout)

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
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
        return self._ask(operations.status(), timeout)

    def metrics(
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
        return self._ask(operations.metrics(form), timeout)

    def ping(self, *, timeout: float | None = None) -> float:
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
        self._ask(operations.ping(), timeout)
        return perf_counter() - begun

    def close(self) -> None:
        """Close the connection. Calls in flight and later calls raise `ClientClosed`."""
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
            raise ClientClosed("this client is closed; create a new one")
        pid = os.getpid()
        if (connection := self._connections.get(pid)) is None:
            self._disown_others()
            # `setdefault` is atomic: threads that race here get the same connection.
            connection = self._connections.setdefault(
                pid, ReconnectingConnection(self._path, self._trust, retries=self._retries)
            )
        return connection

    def _disown_others(self) -> None:
        # Connections that a fork has copied are the parent's.
        for pid in set(self._connections) - {os.getpid()}:
            if connection := self._connections.pop(pid, None):
                connection.disown()
