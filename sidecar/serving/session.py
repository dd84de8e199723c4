"""One peer: its bytes to requests, the engine's results to bytes.

Every request is a task of the session's group, and the boundary at which its errors end. A
request takes one of `max_in_flight` slots from its frame until its reply is written, so a peer
that sends too fast or reads too slowly is not read from any more. Knows no models.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn, TypeAlias

from client_lib.wire.errors import BackendFailed, Cancelled, ReplyError
from client_lib.wire.messages import Cancel, Embed, Hello, Metrics, Ping, Request, Rerank, Status
from client_lib.wire.protocol import VERSION, Received, Refused, ServerConnection
from sidecar.events import log, trace
from sidecar.serving import failures
from sidecar.serving.desk import Desk
from sidecar.serving.footprint import LONG_FRAME_BYTES
from sidecar.serving.ledger import Hold
from sidecar.serving.outgoing import Outgoing
from sidecar.serving.peer import Peer, has_left
from sidecar.serving.results import Answer, EmbedResult, RerankResult

_Result: TypeAlias = Mapping[str, Any] | EmbedResult | RerankResult
_Outcome: TypeAlias = _Result | ReplyError

_CANCELLED = Cancelled("cancelled by its peer, or left behind by it")
_READ_BYTES = 64 * 1024
# From here on copying a reply's vectors would hold up the other peers.
_PACK_ON_A_THREAD_BYTES = 256 * 1024
# How often somebody looks whether a peer is there that is not read from.
_LOOK_SECONDS = 1.0


class _PeerLeft(Exception):
    """Ends the session's group: nobody is left to answer."""


class Session:
    """One connection, from its first frame to its end."""

    def __init__(
        self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self._outgoing = Outgoing(writer, desk.settings.rules.stall_seconds, self._note_stalled)
        self._peer = Peer.of(writer.get_extra_info("socket"))
        # For as long as the connection lasts: the peer has been told them.
        self._limits = desk.settings.limits
        self._connection = ServerConnection(self._limits)
        self._slots = asyncio.Semaphore(desk.settings.max_in_flight)
        self._stall_seconds = desk.settings.rules.stall_seconds
        self._patience = self._stall_seconds  # what is left of it for the frame that has begun
        # Requests that can still be cancelled: their reply has not been written.
        self._open: dict[int, asyncio.Task[_Outcome]] = {}
        self._requests = 0
        self._refused = 0
        self._frame: Hold | None = None  # for the long frame that is being received

    async def run(self) -> None:
        """Serve the peer until it leaves or breaks the protocol.

        Cancelled, it takes no more requests; what is written already still goes out.
        """
        peer = self._peer
        log.debug("peer.connected", peer_pid=peer.pid, peer_uid=peer.uid, peer_gid=peer.gid)
        try:
            with self._desk.visit(peer):
                async with asyncio.TaskGroup() as group:
                    await self._listen(group)
        except* (_PeerLeft, ConnectionError):
            pass
        except* ReplyError as refusals:  # the connection is, whoever said so
            for refusal in refusals.exceptions:
                assert isinstance(refusal, ReplyError)
                await self._refuse(Refused(None, refusal, True))
        except* Exception as errors:  # noqa: BLE001 - one connection's failure, not the daemon's
            log.error(
                "peer.failed",
                peer_pid=peer.pid,
                peer_uid=peer.uid,
                peer_gid=peer.gid,
                traceback=trace(errors),
            )
        finally:
            self._release_frame()
            await self._outgoing.hang_up()
            log.debug(
                "peer.disconnected",
                peer_pid=peer.pid,
                peer_uid=peer.uid,
                peer_gid=peer.gid,
                requests=self._requests,
                refused=self._refused,
            )

    async def _listen(self, group: asyncio.TaskGroup) -> NoReturn:
        while data := await self._read(group):
            requests = self._connection.receive(data)
            while (refusal := await self._take_next(requests, group)) is not None:
                await self._outgoing.send(refusal)
        raise _PeerLeft

    async def _take_next(
        self, requests: Iterator[Received], group: asyncio.TaskGroup
    ) -> bytes | None:
        """Begin what comes next; return the frame that says why not, or None after the last.

        No variable of a task that waits may refer to a request: it can be large.
        """
        for received in requests:
            if received is None:  # a step is done: the others' turn
                await asyncio.sleep(0)
                continue
            if isinstance(received, Refused):
                self._release_frame()
                await self._refuse(received)
                if received.fatal:
                    raise _PeerLeft
                continue
            if self._writer.is_closing():  # nobody is left, and what was read is for nobody
                raise _PeerLeft
            if self._slots.locked():
                await self._while_here(group.create_task(self._slots.acquire()))
            else:
                await self._slots.acquire()
            self._release_frame()
            try:
                hold = self._desk.hold(self._peer, received)
            except ReplyError as refusal:
                self._slots.release()
                self._desk.statistics.failed(received.op, refusal.code)
                self._note_failure(received, refusal)
                return self._connection.fail(received.id, refusal)
            self._begin(group, received, hold)
        return None

    async def _while_here(self, task: asyncio.Task[Any]) -> None:
        """Wait for `task`. Meanwhile nobody reads, and would see that the peer has left."""
        while not (await asyncio.wait((task,), timeout=_LOOK_SECONDS))[0]:
            if has_left(self._writer.get_extra_info("socket")):
                raise _PeerLeft

    async def _make_room(self) -> None:
        self._frame = await self._desk.room(self._peer, self._connection.pending)

    def _release_frame(self) -> None:
        if self._frame is not None:
            self._frame.release()
            self._frame = None

    async def _read(self, group: asyncio.TaskGroup) -> bytes:
        """Return what the peer sends; b"" once it has left, or has stalled within a frame.

        Of a long frame no more is read than its beginning before there is room for all of it.
        Raises `Overloaded` where there is none for too long.
        """
        if self._frame is None and self._connection.pending > LONG_FRAME_BYTES:
            await self._while_here(group.create_task(self._make_room()))
        if not self._connection.awaits_rest:
            self._patience = self._stall_seconds
            return await self._reader.read(_READ_BYTES)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                return await self._reader.read(_READ_BYTES)
        except TimeoutError:
            self._note_stalled("the rest of a frame")
            return b""
        finally:
            self._patience -= time.monotonic() - started

    async def _refuse(self, refused: Refused) -> None:
        self._refused += 1
        self._desk.statistics.refused(refused.error.code)
        if (unlogged := self._desk.complaints.take(self._peer.uid)) is not None:
            log.warning(
                "peer.rejected",
                peer_pid=self._peer.pid,
                peer_uid=self._peer.uid,
                peer_gid=self._peer.gid,
                request_id=refused.id,
                code=refused.error.code,
                reason=refused.error.message,
                fatal=refused.fatal,
                unlogged=unlogged,
            )
        await self._outgoing.send(self._connection.fail(refused.id, refused.error))

    def _begin(self, group: asyncio.TaskGroup, request: Request, hold: Hold) -> None:
        self._requests += 1
        task = group.create_task(self._answer(request))
        self._open[request.id] = task
        # Not in the task's own `finally`: a task that is cancelled before it starts has none,
        # and an event can wait until the reply is on its way.
        task.add_done_callback(partial(self._end, request, hold))

    def _end(self, request: Request, hold: Hold, task: asyncio.Task[_Outcome]) -> None:
        hold.release()
        self._slots.release()
        if self._open.get(request.id) is task:
            del self._open[request.id]
        outcome = _CANCELLED if task.cancelled() else task.result()
        if isinstance(outcome, ReplyError):
            self._desk.statistics.failed(request.op, outcome.code)
            self._desk.engine.notes.add(partial(self._note_failure, request, outcome))
        elif isinstance(outcome, EmbedResult | RerankResult):
            assert isinstance(request, Embed | Rerank)
            self._desk.statistics.answered(request.op, request.priority, outcome.answer)
            self._desk.engine.notes.add(partial(self._note_success, request, outcome.answer))

    async def _answer(self, request: Request) -> _Outcome:
        # Counted from the first step on: whatever begins in a drain is refused by it.
        owed = isinstance(request, Embed | Rerank)
        with self._desk.accepted if owed else nullcontext():
            outcome, frame = await self._settle(request)
        with self._desk.untaken:
            await self._outgoing.send(frame)
        return outcome

    async def _settle(self, request: Request) -> tuple[_Outcome, bytes]:
        """Return how `request` ended, and the frame that says so. It cannot be cancelled then."""
        try:
            result = await self._perform(request)
            del self._open[request.id]
            return result, await self._pack(request.id, result)
        except Exception as error:  # noqa: BLE001 - the boundary: it fails one request
            failure = error if isinstance(error, ReplyError) else failures.of_daemon(error)
            self._open.pop(request.id, None)
            return failure, self._connection.fail(request.id, failure)

    async def _perform(self, request: Request) -> _Result:
        match request:
            case Embed() | Rerank():
                return await self._compute(request)
            case Hello():
                return {"version": VERSION, **self._desk.hello(self._limits)}
            case Status():
                return {"status": await self._desk.status()}
            case Metrics():
                return await self._desk.metrics(request.format)
            case Cancel():
                return {"cancelled": self._cancel(request.target)}
            case Ping():
                return {}

    async def _compute(self, request: Embed | Rerank) -> EmbedResult | RerankResult:
        engine = self._desk.engine_for(self._peer)
        if isinstance(request, Embed):
            return await engine.embed(request, self._peer)
        return await engine.rerank(request, self._peer)

    def _cancel(self, target: int) -> bool:
        if (task := self._open.pop(target, None)) is None:
            return False
        task.cancel()
        self._outgoing.write(self._connection.fail(target, Cancelled("cancelled by its peer")))
        return True

    async def _pack(self, request_id: int, result: _Result) -> bytes:
        if isinstance(result, Mapping):
            return self._connection.reply(request_id, **result)
        if result.payload_bytes > _PACK_ON_A_THREAD_BYTES:
            return await asyncio.to_thread(self._pack_now, request_id, result)
        return self._pack_now(request_id, result)

    def _pack_now(self, request_id: int, result: EmbedResult | RerankResult) -> bytes:
        return self._connection.reply(request_id, **result.to_map())

    def _note_stalled(self, awaited: str) -> None:
        if (unlogged := self._desk.complaints.take(self._peer.uid)) is not None:
            log.warning(
                "peer.stalled",
                peer_pid=self._peer.pid,
                peer_uid=self._peer.uid,
                peer_gid=self._peer.gid,
                awaited=awaited,
                seconds=self._stall_seconds,
                unlogged=unlogged,
            )

    def _note_success(self, request: Request, answer: Answer) -> None:
        assert isinstance(request, Embed | Rerank)
        timings = answer.timings
        log.info(
            "request.completed",
            op=request.op,
            request_id=request.id,
            peer_pid=self._peer.pid,
            peer_uid=self._peer.uid,
            lane=request.priority,
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
            **_trace_of(request),
        )

    def _note_failure(self, request: Request, error: ReplyError) -> None:
        fault = isinstance(error, BackendFailed)
        (log.error if fault else log.info)(
            "request.failed",
            op=request.op,
            request_id=request.id,
            peer_pid=self._peer.pid,
            peer_uid=self._peer.uid,
            code=error.code,
            reason=error.message,
            traceback=trace(error) if fault else None,
            **_trace_of(request),
        )


def _trace_of(request: Request) -> dict[str, str]:
    """Return the ids in the caller's traceparent, where there is one."""
    if not isinstance(request, Embed | Rerank) or request.traceparent is None:
        return {}
    _, trace_id, parent_id, *_ = request.traceparent.split("-")
    return {"trace_id": trace_id, "parent_id": parent_id}
