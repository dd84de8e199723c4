"""Serve one connection: turn its frames into requests, and the engine's results into frames.

Every request is a task of the session's group, and its errors end there. It occupies one of
`max_in_flight` slots from before its frame is decoded until its reply is written, so a session
stops reading from a peer that sends too fast or reads too slowly. Knows nothing of models.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn, TypeAlias

from client_lib.wire.errors import BackendFailed, Cancelled, ReplyError
from client_lib.wire.messages import (
    Cancel,
    Embed,
    Hello,
    Metrics,
    Ping,
    Priority,
    Request,
    Rerank,
    Status,
)
from client_lib.wire.protocol import VERSION, Refused, ServerConnection
from client_lib.wire.replies import StatusReply
from sidecar.events import log, trace
from sidecar.serving import failures
from sidecar.serving.admission.memory_budget import Reservation
from sidecar.serving.admission.peer import Peer, has_left
from sidecar.serving.context import ServerContext
from sidecar.serving.results import Answer, Embeddings, Ranking
from sidecar.serving.transport.reader import FrameReader, PeerLeft, Stalled
from sidecar.serving.transport.writer import FrameWriter

_Result: TypeAlias = Mapping[str, Any] | Embeddings | Ranking
_Outcome: TypeAlias = _Result | ReplyError
# Requests that take time; the others are answered as they arrive.
_Task: TypeAlias = Embed | Rerank | Status | Metrics

_CANCELLED = Cancelled("cancelled, or the client disconnected")
# Copying larger replies on the event loop would delay other peers.
_PACK_ON_A_THREAD_BYTES = 256 * 1024


class Session:
    """One connection, from its first frame to its end."""

    def __init__(self, context: ServerContext, sock: socket.socket, peer: Peer) -> None:
        self._context = context
        self._sock = sock
        self._peer = peer
        # Fixed for the life of the connection: `hello` has reported them.
        self._limits = context.settings.limits
        self._stall_seconds = context.settings.access.stall_seconds
        self._connection = ServerConnection(self._limits)
        self._incoming = FrameReader(context, peer, sock, self._connection)
        self._channel = self._incoming.channel
        self._outgoing = FrameWriter(self._channel, self._stall_seconds, self._log_stall)
        self._slots = asyncio.Semaphore(context.settings.max_in_flight)
        # Requests that can still be cancelled, because they have no outcome yet.
        self._open: dict[int, asyncio.Task[_Outcome]] = {}
        self._requests = 0
        self._refused = 0
        self._running: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Serve the peer until it leaves or breaks the protocol.

        When cancelled, stop reading requests, but send what has already been written.
        """
        loop = asyncio.get_running_loop()
        self._running = asyncio.current_task()
        with self._sock:
            await self._context.loop_time.turn(self._peer.uid)
            if has_left(self._sock):
                return
            started = time.perf_counter()
            await loop.connect_accepted_socket(lambda: self._channel, self._sock)
            log.debug("peer.connected", **self._peer.named())
            self._context.loop_time.spend(self._peer.uid, started)
            try:
                await self._serve_if_admitted()
            finally:
                log.debug(
                    "peer.disconnected",
                    **self._peer.named(),
                    requests=self._requests,
                    refused=self._refused,
                )

    async def _serve_if_admitted(self) -> None:
        """Serve the peer, unless a reload has excluded it since it connected."""
        try:
            with self._context.registered(self._peer, self._expel):
                try:
                    await self._serve()
                finally:
                    await self._outgoing.hang_up()
                    self._incoming.taken()
        except ReplyError as refusal:
            await self._outgoing.send(self._refuse(Refused(None, refusal, True)))
        finally:
            await self._outgoing.hang_up()

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await self._listen(group)
        except* (PeerLeft, ConnectionError):
            pass
        except* Stalled as stalled:
            self._log_stall(str(stalled.exceptions[0]))
        except* ReplyError as refusals:  # these end the connection
            for refusal in refusals.exceptions:
                assert isinstance(refusal, ReplyError)
                await self._outgoing.send(self._refuse(Refused(None, refusal, True)))
        except* Exception as errors:  # noqa: BLE001 - one connection's failure, not the daemon's
            log.error("peer.failed", **self._peer.named(), traceback=trace(errors))

    def _expel(self, refusal: ReplyError) -> None:
        """Disconnect a peer that is no longer admitted."""
        self._outgoing.write(self._refuse(Refused(None, refusal, True)))
        assert self._running is not None
        self._running.cancel()

    async def _listen(self, group: asyncio.TaskGroup) -> NoReturn:
        while await self._incoming.frame(group):
            await self._take_next(group)
        raise PeerLeft

    async def _take_next(self, group: asyncio.TaskGroup) -> None:
        """Start the request whose frame has arrived, or reply at once."""
        if self._slots.locked():
            await self._incoming.while_here(group, self._slots.acquire())
        else:
            await self._slots.acquire()
        # No local variable may keep a request alive while this task waits: it can be large.
        answer = self._take(group, await self._incoming.take(group))
        self._incoming.taken()
        if answer is not None:
            self._slots.release()
            await self._outgoing.send(answer)
        if self._connection.is_closed:
            raise PeerLeft

    def _take(self, group: asyncio.TaskGroup, received: Request | Refused) -> bytes | None:
        """Return the reply to a frame, or start its request and return None."""
        if self._channel.is_closing:  # nobody is left to answer
            raise PeerLeft
        started = time.perf_counter()
        try:
            return self._begin_or_answer(group, received)
        finally:
            self._context.loop_time.spend(self._peer.uid, started)

    def _begin_or_answer(
        self, group: asyncio.TaskGroup, received: Request | Refused
    ) -> bytes | None:
        match received:
            case Refused():
                return self._refuse(received)
            case Hello():
                answer = {"version": VERSION, **self._context.hello(self._limits)}
            case Ping():
                answer = {}
            case Cancel():
                answer = {"cancelled": self._cancel(received.target)}
            case _:
                return self._begin(group, received)
        self._requests += 1
        return self._connection.reply(received.id, **answer)

    def _refuse(self, refused: Refused) -> bytes:
        """Log a rejection, and return the frame that reports it to the peer."""
        self._refused += 1
        self._context.log_rejection(self._peer, refused)
        return self._connection.fail(refused.id, refused.error)

    def _begin(self, group: asyncio.TaskGroup, request: _Task) -> bytes | None:
        """Start a task for the request, or return the reply that rejects it."""
        self._requests += 1
        try:
            reservation = self._context.accounts.reserve_request(self._peer, request)
        except ReplyError as refusal:
            self._fail(request, refusal)
            return self._connection.fail(request.id, refusal)
        task = group.create_task(self._answer(request))
        self._open[request.id] = task
        # Not in the task's own `finally`, which a task cancelled before it starts never enters;
        # and the event can wait until the reply has been sent.
        task.add_done_callback(partial(self._end, request, reservation))
        return None

    def _end(self, request: _Task, reservation: Reservation, task: asyncio.Task[_Outcome]) -> None:
        reservation.release()
        self._slots.release()
        if self._open.get(request.id) is task:
            del self._open[request.id]
        outcome = _CANCELLED if task.cancelled() else task.result()
        if isinstance(outcome, ReplyError):
            self._fail(request, outcome)
        elif isinstance(outcome, Embeddings | Ranking):
            assert isinstance(request, Embed | Rerank)
            self._context.statistics.answered(request.op, request.priority, outcome.answer)
            note = partial(_log_success, self._named(request), request.priority, outcome.answer)
            self._context.engine.notes.add(note)

    def _fail(self, request: _Task, error: ReplyError) -> None:
        self._context.statistics.failed(request.op, error.code)
        if (unlogged := self._context.failures.take(self._peer.uid)) is not None:
            note = partial(_log_failure, self._named(request), error, unlogged)
            self._context.engine.notes.add(note)

    def _named(self, request: _Task) -> dict[str, Any]:
        """Return the fields that identify a request in events, which must not keep it alive."""
        return {
            "op": request.op,
            "request_id": request.id,
            "peer_pid": self._peer.pid,
            "peer_uid": self._peer.uid,
            **_trace_of(request),
        }

    async def _answer(self, request: _Task) -> _Outcome:
        # Counted from the task's first step: one that starts during a drain is rejected.
        owed = isinstance(request, Embed | Rerank)
        with self._context.accepted if owed else nullcontext():
            outcome, frame = await self._settle(request)
        with self._context.untaken:
            await self._outgoing.send(frame)
        return outcome

    async def _settle(self, request: _Task) -> tuple[_Outcome, bytes]:
        """Return the outcome of `request`, and its reply. From then on it cannot be cancelled."""
        try:
            result = await self._perform(request)
            del self._open[request.id]
            return result, await self._pack(request.id, result)
        except Exception as error:  # noqa: BLE001 - the boundary: it fails one request
            failure = error if isinstance(error, ReplyError) else failures.of_daemon(error)
            self._open.pop(request.id, None)
            return failure, self._connection.fail(request.id, failure)

    async def _perform(self, request: _Task) -> _Result:
        match request:
            case Embed() | Rerank():
                return await self._compute(request)
            case Status():
                return StatusReply(await self._context.status(self._peer)).to_map()
            case Metrics():
                return await self._context.metrics(self._peer, request.format)

    async def _compute(self, request: Embed | Rerank) -> Embeddings | Ranking:
        engine = self._context.engine_for(self._peer)
        if isinstance(request, Embed):
            return await engine.embed(request, self._peer)
        return await engine.rerank(request, self._peer)

    def _cancel(self, target: int) -> bool:
        if (task := self._open.pop(target, None)) is None:
            return False
        task.cancel()
        self._outgoing.write(self._connection.fail(target, Cancelled("cancelled by the client")))
        return True

    async def _pack(self, request_id: int, result: _Result) -> bytes:
        if isinstance(result, Mapping):
            return self._connection.reply(request_id, **result)
        if result.payload_bytes > _PACK_ON_A_THREAD_BYTES:
            return await asyncio.to_thread(self._pack_now, request_id, result)
        return self._pack_now(request_id, result)

    def _pack_now(self, request_id: int, result: Embeddings | Ranking) -> bytes:
        return self._connection.reply(request_id, **result.to_map())

    def _log_stall(self, awaited: str) -> None:
        self._context.log_stall(self._peer, awaited, self._stall_seconds)


def _log_success(named: Mapping[str, Any], lane: Priority, answer: Answer) -> None:
    timings = answer.timings
    log.info(
        "request.completed",
        **named,
        lane=lane,
        model=answer.model,
        rows=answer.rows,
        tokens=answer.tokens,
        cached_rows=timings.cached_rows,
        shared_rows=timings.shared_rows,
        queue_ms=timings.queue_ms,
        tokenize_ms=timings.tokenize_ms,
        compute_ms=timings.compute_ms,
        total_ms=timings.total_ms,
        batch_rows=timings.batch_rows,
    )


def _log_failure(named: Mapping[str, Any], error: ReplyError, unlogged: int) -> None:
    fault = isinstance(error, BackendFailed)
    (log.error if fault else log.info)(
        "request.failed",
        **named,
        code=error.code,
        reason=error.message,
        traceback=trace(error) if fault else None,
        unlogged=unlogged,
    )


def _trace_of(request: _Task) -> dict[str, str]:
    """Return the ids in the caller's traceparent, if the request has one."""
    if not isinstance(request, Embed | Rerank) or request.traceparent is None:
        return {}
    _, trace_id, parent_id, *_ = request.traceparent.split("-")
    return {"trace_id": trace_id, "parent_id": parent_id}
