"""Collect each request's rows, which several threads compute in any order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import numpy as np

from client_lib.wire.errors import ReplyError
from client_lib.wire.replies import Timings
from sidecar.serving import failures
from sidecar.serving.registry import Float32
from sidecar.serving.results import milliseconds
from sidecar.serving.scheduler.job import Entry, Job, Key
from sidecar.serving.scheduler.worker_pool import CompletedRow

AT_ONCE = 256
"""How many rows, or places of one row, to handle before yielding to the event loop."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A request's rows, float32 [n, d], with cached rows still to be filled in; times in seconds.

    `shared` counts the rows whose result was computed for an equal row elsewhere.
    """

    vectors: Float32
    started: float
    ended: float
    batch_rows: int
    batch_tokens: int
    shared: int

    @classmethod
    def of_nothing(cls, job: Job) -> "Computed":
        """Return the result of a job whose rows are all cached."""
        vectors = np.empty((job.size, job.finish.dimensions), np.float32)
        return cls(vectors, job.arrived, job.arrived, 0, 0, 0)

    def timings(self, begun: float, arrived: float, cached: int, now: float) -> Timings:
        """Return the timings of a request that began at `begun` and was queued at `arrived`."""
        return Timings(
            queue_ms=milliseconds(self.started - arrived),
            tokenize_ms=milliseconds(arrived - begun),
            compute_ms=milliseconds(self.ended - self.started),
            total_ms=milliseconds(now - begun),
            batch_rows=self.batch_rows,
            batch_tokens=self.batch_tokens,
            cached_rows=cached,
            shared_rows=self.shared,
        )


class ResultCollector:
    """Collects a job's rows; `outcome` is done with the last row or the first failure."""

    def __init__(self, job: Job) -> None:
        self.outcome: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._job = job
        self._vectors = np.empty((job.size, job.finish.dimensions), np.float32)
        self.missing = len(job.rows)
        self._shared = 0
        self._first: CompletedRow | None = None
        self._largest: CompletedRow | None = None

    def take(self, index: int, row: CompletedRow) -> None:
        """Store `row`, which may have been computed for an equal row, as the job's row `index`.

        Never raises: an error fails this request, but not others that wait for the row.
        """
        if isinstance(row.outcome, Exception):
            self.fail(failures.of_model(row.outcome, self._job.places[index][0]))
            return
        try:
            self._put(index, row.outcome, row)
        except Exception as error:  # noqa: BLE001 - not swallowed: the request is told
            self.fail(failures.of_daemon(error))

    def fail(self, error: ReplyError) -> None:
        """Fail the request, unless it is already settled."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def _put(self, index: int, vector: Float32, row: CompletedRow) -> None:
        places = self._job.places[index]
        for place in places:
            self._vectors[place] = vector
        self.missing -= 1
        self._shared += len(places) - (row.entry == Entry(self._job, index))
        self._note(row)
        if not self.missing and not self.outcome.done():
            self.outcome.set_result(self._computed(row.ended))

    def _note(self, row: CompletedRow) -> None:
        if self._first is None or row.started < self._first.started:
            self._first = row
        if self._largest is None or row.batch.rows > self._largest.batch.rows:
            self._largest = row

    def _computed(self, ended: float) -> Computed:
        assert self._first is not None
        assert self._largest is not None
        batch = self._largest.batch
        # An equal row may have started before this job arrived.
        started = max(self._first.started, self._job.arrived)
        return Computed(self._vectors, started, ended, batch.rows, batch.tokens, self._shared)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The `others` that no longer need a row, and whether nobody waits for it any more (`whole`).

    `shared`: the places that were filled beyond the one it was computed for.
    """

    others: Sequence[Entry]
    shared: int
    whole: bool


class ResultCollectors:
    """All jobs in flight, and which of them wait for each row: one row may be for several."""

    def __init__(self) -> None:
        self._by_job: dict[Job, ResultCollector] = {}
        self._waiting: dict[Key, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    def open(self, job: Job) -> ResultCollector:
        """Start collecting the rows of `job`, which has at least one."""
        collector = self._by_job[job] = ResultCollector(job)
        for key, entry in zip(job.keys, job.entries, strict=True):
            self._waiting.setdefault(key, []).append(entry)
        return collector

    def close(self, job: Job) -> None:
        """Stop collecting for `job`, even if `open` failed halfway."""
        collector = self._by_job.pop(job, None)
        if collector is None or not collector.missing:
            return
        for key in set(job.keys):
            entries = self._waiting.pop(key, ())
            if others := [entry for entry in entries if entry.job is not job]:
                self._waiting[key] = others

    def deliver(self, row: CompletedRow) -> Delivery:
        """Give `row` to the entries that wait for it, up to `AT_ONCE` places per call.

        Until the last one has it, new entries for the same row join the wait.
        """
        entries = self._waiting.pop(row.entry.key, [])
        count = _as_many_as_fit(entries)
        if rest := entries[count:]:
            self._waiting[row.entry.key] = rest
        now = entries[:count]
        for entry in now:
            self._by_job[entry.job].take(entry.index, row)
        others = [entry for entry in now if entry != row.entry]
        shared = sum(len(entry.places) for entry in now) - (len(now) - len(others))
        return Delivery(others, shared, whole=not rest)

    def fail(self, job: Job, error: ReplyError) -> None:
        """Fail `job`, if it is still open."""
        if job in self._by_job:
            self._by_job[job].fail(error)

    def fail_all(self, error: ReplyError) -> None:
        """Fail every job that is not settled."""
        for collector in self._by_job.values():
            collector.fail(error)


def _as_many_as_fit(entries: Sequence[Entry]) -> int:
    """Return how many of the first `entries` have `AT_ONCE` places in total; at least one."""
    places = accumulate(len(entry.places) for entry in entries)
    return max(1, sum(1 for _ in takewhile(lambda total: total <= AT_ONCE, places)))
