"""Turn requests into results: pick the model, queue the rows, assemble the results.

Knows nothing of sockets. Everything here runs on the event loop.
"""

import asyncio
import math
import time
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from client_lib.wire.errors import BackendFailed, DeadlineExceeded, Draining, Overloaded, TooLarge
from client_lib.wire.messages import Embed, Rerank
from sidecar.events import log
from sidecar.events.deferred import DeferredLog
from sidecar.models.rows import Row
from sidecar.serving import failures
from sidecar.serving.admission.memory_estimator import MemoryEstimator
from sidecar.serving.admission.peer import Peer
from sidecar.serving.engine.collector import AT_ONCE, Computed, ResultCollectors
from sidecar.serving.engine.result_cache import ResultCache
from sidecar.serving.engine.tokenizer_pool import TokenizerPool
from sidecar.serving.engine.work import WorkItem
from sidecar.serving.in_flight import InFlightCounter
from sidecar.serving.postprocess import cosines
from sidecar.serving.registry import Float32, ModelRegistry, ServedModel
from sidecar.serving.results import Answer, Embeddings, Ranking, milliseconds
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.job import Job, Usage
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.scheduler.queue import Batch, Queue
from sidecar.serving.scheduler.worker_pool import Callbacks, Clock, CompletedRow, WorkerPool
from sidecar.serving.telemetry.statistics import Statistics


class Engine:
    """The models, the queue and the threads behind `embed` and `rerank`.

    Create and use it on one running event loop: `start` before the first request, `stop` after
    the last. `costs` maps a model's name to its cost model. Up to `cache_bytes` of results are
    cached, and cached rows are not computed again. Pass `statistics` on to keep counting across
    engines. `notes` defers log lines that no reply should wait for. `crashed` is done, with the
    exception, once inference has ended unexpectedly.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        costs: Mapping[str, CostModel],
        *,
        threads: int,
        bounds: QueueLimits,
        cache_bytes: int = 0,
        clock: Clock = time.perf_counter,
        statistics: Statistics | None = None,
    ) -> None:
        self.crashed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.notes = DeferredLog()
        self.statistics = statistics or Statistics()
        self._clock = clock
        self._threads = threads
        self._registry = ModelRegistry(models)
        self._tokenizers = {model.name: TokenizerPool(model) for model in models}
        self._costs = costs
        self._queue = Queue(bounds, threads)
        callbacks = Callbacks(self._row_finished, self._crash)
        self._workers = WorkerPool(self._queue, threads, callbacks, clock)
        self._collectors = ResultCollectors()
        self._cache = ResultCache(cache_bytes)
        self._shared = 0
        self._in_flight = InFlightCounter()

    @property
    def model_names(self) -> list[str]:
        """The names of its models."""
        return [model.name for model in self._registry.models]

    @property
    def estimator(self) -> MemoryEstimator:
        """The memory estimator for requests to its models."""
        models = self._registry.models
        return MemoryEstimator(
            max(model.dimensions for model in models), max(model.max_tokens for model in models)
        )

    def start(self) -> None:
        """Start the inference threads."""
        self._workers.start()

    async def idle(self) -> None:
        """Wait until no request is in flight. No new ones may be sent meanwhile."""
        await self._in_flight.idle()

    async def stop(self) -> None:
        """Finish the running rows and join the threads; queued rows are abandoned."""
        for tokenizer in self._tokenizers.values():
            await tokenizer.stop()
        await self._workers.stop()
        self.notes.flush()

    async def embed(self, request: Embed, peer: Hashable = None) -> Embeddings:
        """Return float32 [n, d] for n texts.

        Users take turns, and so do the peers of one user, which is the `uid` of a `Peer`.

        Rows are cached and shared in float32, whatever the precision of the reply.

        Raises the `ReplyError` to send to the caller. Cancelling the call drops its rows.
        """
        model = self._registry.embedder(request.model)
        answer, vectors = await self._answer(WorkItem.texts_of(model, request), peer)
        return Embeddings(answer, vectors, request.precision)

    async def rerank(self, request: Rerank, peer: Hashable = None) -> Ranking:
        """Return the documents by relevance, best first, ties by index; `peer` is as in `embed`.

        Raises the `ReplyError` to send to the caller. Cancelling the call drops its rows.
        """
        model = self._registry.reranker(request.model)
        if model.task == "rerank":
            answer, scores = await self._answer(WorkItem.pairs_of(model, request), peer)
            return Ranking.by_score(answer, "cross_encoder", scores[:, 0], request.top_n)
        answer, vectors = await self._answer(WorkItem.documents_of(model, request), peer)
        scores = cosines(vectors[-1], vectors[:-1])
        return Ranking.by_score(answer, "embedding", scores, request.top_n)

    def longest_forward(self) -> float:
        """Return how long the oldest running row has been computing, in seconds."""
        return self._workers.longest()

    def standstill(self) -> float:
        """Return how long requests have waited without a row starting or finishing, in seconds."""
        return self._workers.still() if len(self._collectors) else 0.0

    def status(self) -> dict[str, Any]:
        """Return the engine's part of `status`."""
        return {
            "models": [model.describe() for model in self._registry.models],
            "costs": {name: cost.to_map() for name, cost in self._costs.items()},
            "queue": {
                **{lane: _lane_status(peers) for lane, peers in self._workers.waiting.items()},
                "bounds": asdict(self._queue.bounds),
            },
            "threads": self._threads,
            "batches": self._queue.batches,
            "cache": {**self._cache.to_map(), "shared": self._shared},
        }

    async def _answer(self, item: WorkItem, peer: Hashable) -> tuple[Answer, Float32]:
        with self._in_flight:
            return await self._answer_in_time(item, peer)

    async def _answer_in_time(self, item: WorkItem, peer: Hashable) -> tuple[Answer, Float32]:
        begun = self._clock()
        try:
            async with asyncio.timeout(item.timeout):
                if item.timeout is not None:
                    priority, user = item.request.priority, _user_of(peer)
                    self._workers.refuse_if_late(priority, peer, item.timeout, user)
                rows = await self._rows(item, _user_of(peer))
                item.refuse_empty(rows)
                truncated = item.truncated(rows)
                known = self._cache.recall(item.key(row) for row in rows)
                await _give_way(rows)
                job = self._job(item, rows, known, peer, begun)
                await _give_way(rows)
                computed = await self._compute(job)
        except (DeadlineExceeded, Overloaded, TooLarge) as refusal:  # all raised by the queue
            self.statistics.not_admitted(item.request.priority, refusal.code)
            raise
        except BackendFailed as failure:
            if failure.index == item.inputs:  # the query, which is not an input
                failure.index = None
            raise
        except TimeoutError:
            raise DeadlineExceeded(f"not finished within {item.timeout:g} s") from None
        for index, vector in known.items():
            computed.vectors[index] = vector
        timings = computed.timings(begun, job.arrived, len(known), self._clock())
        tokens = sum(row.tokens for row in rows)
        answer = Answer(item.model.name, len(rows), tokens, truncated, timings)
        return answer, computed.vectors

    async def _rows(self, item: WorkItem, user: Hashable) -> list[Row]:
        tokenizer = self._tokenizers[item.model.name]
        rows: list[Row] = []
        for part in item.parts:
            rows += await tokenizer.rows(
                part.texts, item.request.priority, prompt=part.prompt, user=user
            )
        return rows

    def _job(
        self,
        item: WorkItem,
        rows: Sequence[Row],
        known: Container[int],
        peer: Hashable,
        begun: float,
    ) -> Job:
        """Return a job of the rows that are not `known`, with equal rows merged."""
        places: dict[bytes, list[int]] = {}
        for index, row in enumerate(rows):
            if index not in known:
                places.setdefault(row.digest, []).append(index)
        distinct = tuple(rows[first] for first, *_ in places.values())
        cost = self._costs[item.model.name]
        tokens = [row.tokens for row in distinct]
        by_tokens = {each: cost.microseconds(each) for each in set(tokens)}
        return Job(
            model=item.model,
            rows=distinct,
            places=tuple(places.values()),
            size=len(rows),
            costs=[by_tokens[each] for each in tokens],
            finish=item.finish,
            arrived=self._clock(),
            user=_user_of(peer),
            peer=peer,
            priority=item.request.priority,
            deadline=math.inf if item.timeout is None else begun + item.timeout,
            row_bytes=item.row_bytes,
        )

    async def _compute(self, job: Job) -> Computed:
        if self.crashed.done():
            raise Draining("inference has stopped; retry with the next daemon")
        if not job.rows:
            return Computed.of_nothing(job)
        self._workers.submit(job)
        try:
            # No row is delivered before this task yields to the event loop.
            return await self._collectors.open(job).outcome
        finally:
            # Settled, failed or cancelled: rows that still wait are useless.
            self._collectors.close(job)
            if batch := self._workers.drop(job):
                self._batch_ended(batch, self._clock())

    def _row_finished(self, row: CompletedRow) -> None:
        """Deliver a row, then record it; an error while recording is logged and fails no request.

        If the bookkeeping of waiting rows itself fails, inference ends: a later request could
        otherwise wait forever.
        """
        try:
            delivery = self._collectors.deliver(row)
            finished = self._workers.completed(row.entry.key, delivery.others, whole=delivery.whole)
        except Exception as error:  # noqa: BLE001 - not swallowed: the process ends
            self._crash(error, row.entry.job)
            return
        self._shared += delivery.shared
        for batch in (row.batch, *finished) if row.last and delivery.whole else finished:
            self._batch_ended(batch, row.ended)
        if not delivery.whole:
            asyncio.get_running_loop().call_soon(self._row_finished, row)
        elif not isinstance(row.outcome, Exception):
            self._learn(row, row.outcome)

    def _learn(self, row: CompletedRow, result: Float32) -> None:
        if not row.parallel:  # costs are those of rows that run beside others
            cost = self._costs[row.batch.model.name]
            cost.record(row.entry.row.tokens, row.ended - row.started)
        self._cache.put(row.entry.key, result)

    def _batch_ended(self, batch: Batch, ended: float) -> None:
        self.statistics.batch(batch.priority, batch.rows, batch.tokens)
        self.notes.add(partial(_log_batch, batch, ended))

    def _crash(self, error: BaseException, job: Job | None) -> None:
        if not self.crashed.done():
            self.crashed.set_result(error)
        # The request that caused it gets the cause; the others may retry with the next daemon.
        if job is not None:
            self._collectors.fail(job, failures.of_inference(error))
        self._collectors.fail_all(Draining("inference has stopped; retry with the next daemon"))


async def _give_way(rows: Sequence[Row]) -> None:
    """Yield to the event loop if these rows are enough to block it for a millisecond or two."""
    if len(rows) > AT_ONCE:
        await asyncio.sleep(0)


def _user_of(peer: Hashable) -> Hashable:
    """Return the user that owns `peer`; all but a `Peer` belong to one user."""
    return peer.uid if isinstance(peer, Peer) else None


def _lane_status(peers: Mapping[Hashable, Usage]) -> dict[str, Any]:
    by_peer = {str(peer): usage.to_map() for peer, usage in peers.items()}
    return {**sum(peers.values(), Usage()).to_map(), "peers": by_peer}


def _log_batch(batch: Batch, ended: float) -> None:
    log.info(
        "batch.completed",
        batch_id=batch.id,
        model=batch.model.name,
        lane=batch.priority,
        peers=batch.peers,
        rows=batch.rows,
        tokens=batch.tokens,
        queue_ms=milliseconds(batch.longest_wait),
        compute_ms=milliseconds(ended - batch.cut),
    )
