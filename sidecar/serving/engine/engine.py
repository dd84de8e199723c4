"""Requests to results: which model, which rows, which queue; then the rows put together.

Sees no sockets. Everything here runs on the loop.
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

    Made and used on one running loop; `start` before the first request, `stop` after the
    last. `costs` has what is known of each model's rows, by the model's name. `cache_bytes` of
    results are kept, and rows that have one are not computed again. `statistics` outlive an
    engine where they are given to the next. `notes` takes the events that no reply waits for.
    `crashed` is done, with what escaped, once inference has ended unasked.
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
        """What requests to its models take of memory."""
        models = self._registry.models
        return MemoryEstimator(
            max(model.dimensions for model in models), max(model.max_tokens for model in models)
        )

    def start(self) -> None:
        """Start the inference threads."""
        self._workers.start()

    async def idle(self) -> None:
        """Return once no request is here; for whoever brings it no more."""
        await self._in_flight.idle()

    async def stop(self) -> None:
        """Let running rows end and join the threads; what still waits is left."""
        for tokenizer in self._tokenizers.values():
            await tokenizer.stop()
        await self._workers.stop()
        self.notes.flush()

    async def embed(self, request: Embed, peer: Hashable = None) -> Embeddings:
        """Return float32 [n, d] for n texts.

        Users take turns, and so do the peers of one: a user is the one of a `Peer`.

        Rows are kept and shared in float32, whatever precision they will travel in.

        Raises the `ReplyError` that the caller is to be told. Cancelling it drops its rows.
        """
        model = self._registry.embedder(request.model)
        answer, vectors = await self._answer(WorkItem.texts_of(model, request), peer)
        return Embeddings(answer, vectors, request.precision)

    async def rerank(self, request: Rerank, peer: Hashable = None) -> Ranking:
        """Return the documents by relevance, the best first, ties by index; peers as in `embed`.

        Raises the `ReplyError` that the caller is to be told. Cancelling it drops its rows.
        """
        model = self._registry.reranker(request.model)
        if model.task == "rerank":
            answer, scores = await self._answer(WorkItem.pairs_of(model, request), peer)
            return Ranking.by_score(answer, "cross_encoder", scores[:, 0], request.top_n)
        answer, vectors = await self._answer(WorkItem.documents_of(model, request), peer)
        scores = cosines(vectors[-1], vectors[:-1])
        return Ranking.by_score(answer, "embedding", scores, request.top_n)

    def longest_forward(self) -> float:
        """Return for how long the oldest row that is being computed has been, in seconds."""
        return self._workers.longest()

    def standstill(self) -> float:
        """Return for how long requests have waited while no row was begun or ended, in seconds."""
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

    async def _answer(self, asked: WorkItem, peer: Hashable) -> tuple[Answer, Float32]:
        with self._in_flight:
            return await self._answer_in_time(asked, peer)

    async def _answer_in_time(self, asked: WorkItem, peer: Hashable) -> tuple[Answer, Float32]:
        begun = self._clock()
        try:
            async with asyncio.timeout(asked.timeout):
                if asked.timeout is not None:
                    priority, user = asked.request.priority, _user_of(peer)
                    self._workers.refuse_if_late(priority, peer, asked.timeout, user)
                rows = await self._rows(asked, _user_of(peer))
                asked.refuse_empty(rows)
                truncated = asked.truncated(rows)
                known = self._cache.recall(asked.key(row) for row in rows)
                await _give_way(rows)
                job = self._job(asked, rows, known, peer, begun)
                await _give_way(rows)
                computed = await self._compute(job)
        except (DeadlineExceeded, Overloaded, TooLarge) as refusal:  # the queue's, all of them
            self.statistics.not_admitted(asked.request.priority, refusal.code)
            raise
        except BackendFailed as failure:
            if failure.index == asked.inputs:  # the query, which is no input
                failure.index = None
            raise
        except TimeoutError:
            raise DeadlineExceeded(f"not done within its {asked.timeout:g} s") from None
        for index, vector in known.items():
            computed.vectors[index] = vector
        timings = computed.timings(begun, job.arrived, len(known), self._clock())
        tokens = sum(row.tokens for row in rows)
        answer = Answer(asked.model.name, len(rows), tokens, truncated, timings)
        return answer, computed.vectors

    async def _rows(self, asked: WorkItem, user: Hashable) -> list[Row]:
        tokenizer = self._tokenizers[asked.model.name]
        rows: list[Row] = []
        for part in asked.parts:
            rows += await tokenizer.rows(
                part.texts, asked.request.priority, prompt=part.prompt, user=user
            )
        return rows

    def _job(
        self,
        asked: WorkItem,
        rows: Sequence[Row],
        known: Container[int],
        peer: Hashable,
        begun: float,
    ) -> Job:
        """Return a job of the rows that are not `known`, equal ones once."""
        places: dict[bytes, list[int]] = {}
        for index, row in enumerate(rows):
            if index not in known:
                places.setdefault(row.digest, []).append(index)
        distinct = tuple(rows[first] for first, *_ in places.values())
        cost = self._costs[asked.model.name]
        tokens = [row.tokens for row in distinct]
        by_tokens = {each: cost.microseconds(each) for each in set(tokens)}
        return Job(
            model=asked.model,
            rows=distinct,
            places=tuple(places.values()),
            size=len(rows),
            costs=[by_tokens[each] for each in tokens],
            finish=asked.finish,
            arrived=self._clock(),
            user=_user_of(peer),
            peer=peer,
            priority=asked.request.priority,
            deadline=math.inf if asked.timeout is None else begun + asked.timeout,
            row_bytes=asked.row_bytes,
        )

    async def _compute(self, job: Job) -> Computed:
        if self.crashed.done():
            raise Draining("inference has stopped; ask the next daemon")
        if not job.rows:
            return Computed.of_nothing(job)
        self._workers.submit(job)
        try:
            # No row comes back before this task lets the loop go.
            return await self._collectors.open(job).outcome
        finally:
            # Settled, failed or cancelled: whatever of it still waits is of no use.
            self._collectors.close(job)
            if batch := self._workers.drop(job):
                self._batch_ended(batch, self._clock())

    def _row_finished(self, row: CompletedRow) -> None:
        """Deliver a row, and then tell of it: what fails there is an event, and no request's end.

        Where the books of what waits fail themselves, inference ends: they could keep a later
        request waiting for ever.
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
        if not row.parallel:  # what rows cost is what they cost beside others
            cost = self._costs[row.batch.model.name]
            cost.record(row.entry.row.tokens, row.ended - row.started)
        self._cache.put(row.entry.key, result)

    def _batch_ended(self, batch: Batch, ended: float) -> None:
        self.statistics.batch(batch.priority, batch.rows, batch.tokens)
        self.notes.add(partial(_log_batch, batch, ended))

    def _crash(self, error: BaseException, job: Job | None) -> None:
        if not self.crashed.done():
            self.crashed.set_result(error)
        # Whoever brought it about is told so; the others may ask the next daemon.
        if job is not None:
            self._collectors.fail(job, failures.of_inference(error))
        self._collectors.fail_all(Draining("inference has stopped; ask the next daemon"))


async def _give_way(rows: Sequence[Row]) -> None:
    """Let the loop turn to others where so many rows have kept it busy for a millisecond or two."""
    if len(rows) > AT_ONCE:
        await asyncio.sleep(0)


def _user_of(peer: Hashable) -> Hashable:
    """Return whose process it is: all that the kernel has not named are of one user."""
    return peer.uid if isinstance(peer, Peer) else None


def _lane_status(peers: Mapping[Hashable, Usage]) -> dict[str, Any]:
    by_peer = {str(peer): load.to_map() for peer, load in peers.items()}
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
