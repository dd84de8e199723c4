"""The inference threads: the only bridge between the event loop and the threads.

There is no barrier: a thread takes one row at a time from the queue, which cuts the next batch as
soon as the current one has none left, while its last rows may still run. A finished row goes to
the loop at once. One lock guards the queue; it is never held while a row is computed.

A row that is taken while nothing else runs or waits may use all cores.

A row whose forward failed is retried once with no other beside it: it may have run out of memory.
Only a row that also fails alone is itself at fault.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVarTuple

from client_lib.wire.messages import Priority
from sidecar.serving.registry import Float32
from sidecar.serving.scheduler.intra_op import IntraOpPolicy
from sidecar.serving.scheduler.job import Entry, Job, Key, Usage
from sidecar.serving.scheduler.queue import ActiveBatch, Batch, Queue

Clock: TypeAlias = Callable[[], float]
_Args = TypeVarTuple("_Args")
_MICROSECOND = 1e-6
_MOMENT = 0.000_5  # seconds for which a thread leaves the queue to others


@dataclass(frozen=True, slots=True)
class CompletedRow:
    """A computed row: its vector, or the exception that the model raised. Times in seconds.

    `last`: no row of its batch is left. `parallel`: it used several cores.
    """

    entry: Entry
    batch: Batch
    outcome: Float32 | Exception
    started: float
    ended: float
    last: bool
    parallel: bool


@dataclass(frozen=True, slots=True)
class _Taken:
    """A row that a thread has taken."""

    running: ActiveBatch
    entry: Entry
    parallel: bool


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Where the threads report to; both are called on the event loop.

    `crash` gets the exception that escaped, and the job whose row was being computed, if any.
    """

    row: Callable[[CompletedRow], None]
    crash: Callable[[BaseException, Job | None], None]


class WorkerPool:
    """`threads` inference threads over one queue. Call its methods on the event loop."""

    def __init__(
        self, queue: Queue, threads: int, callbacks: Callbacks, clock: Clock = time.perf_counter
    ) -> None:
        self._queue = queue
        self._callbacks = callbacks
        self._clock = clock
        self._work = threading.Condition(threading.Lock())
        self._stopping = False
        # When each running row was taken, by thread; and how many of them are being retried
        # alone, or wait for that.
        self._taken: dict[int, float] = {}
        self._failed = 0
        # When a row last started, finished, or arrived while there was none.
        self._last_progress = clock()
        self._intra_op = IntraOpPolicy()
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._run, name=f"inference-{index}")
            for index in range(threads)
        ]

    def start(self) -> None:
        """Start the threads; they wait for work."""
        for thread in self._threads:
            thread.start()

    def refuse_if_late(
        self, priority: Priority, peer: Hashable, left: float, user: Hashable
    ) -> None:
        """Raise what `Queue.refuse_if_late` raises."""
        with self._work:
            self._queue.refuse_if_late(priority, peer, left, user)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises what `Queue.push` raises."""
        with self._work:
            was_idle = self._queue.is_empty and not self._taken
            self._queue.push(job)
            if was_idle:
                self._last_progress = self._clock()
            self._work.notify(len(job.rows))

    def drop(self, job: Job) -> Batch | None:
        """Drop every row of `job` that is not yet running; return the batch if that finishes it."""
        with self._work:
            return self._queue.drop(job)

    def completed(self, key: Key, others: Iterable[Entry], *, whole: bool) -> list[Batch]:
        """Call `Queue.completed`. Each reported row needs exactly one call with `whole`."""
        with self._work:
            return self._queue.completed(key, others, whole=whole)

    @property
    def waiting(self) -> Mapping[Priority, Mapping[Hashable, Usage]]:
        """What waits in the queue, by lane and peer."""
        with self._work:
            return self._queue.loads

    def longest(self) -> float:
        """Return how long the oldest running row has been computing, in seconds."""
        now = self._clock()
        return max((now - taken for taken in list(self._taken.values())), default=0.0)

    def still(self) -> float:
        """Return how long no row has started, finished or arrived while idle, in seconds."""
        return self._clock() - self._last_progress

    async def stop(self) -> None:
        """Finish the running rows, leave the others, and join the threads."""
        with self._work:
            self._stopping = True
            self._work.notify_all()
        await asyncio.to_thread(_join, self._threads)

    # The rest runs on the inference threads.

    def _run(self) -> None:
        taken: _Taken | None = None
        try:
            taken = self._wait()
            while taken is not None:
                taken = self._compute(taken) or self._wait()
        except BaseException as error:  # noqa: BLE001 - not swallowed: the loop ends the process
            with self._work:
                computing = self._taken.pop(threading.get_ident(), None) is not None
                self._work.notify_all()
            job = taken.entry.job if taken and computing else None
            self._post(self._callbacks.crash, error, job)

    def _wait(self) -> _Taken | None:
        with self._work:
            while not self._stopping and (taken := self._take()) is None:
                self._work.wait(None if self._failed or self._queue.is_empty else _MOMENT)
            return None if self._stopping else taken

    def _take(self) -> _Taken | None:
        if self._stopping or self._failed:
            return None
        now = self._clock()
        if (taken := self._queue.take(now)) is None:
            return None
        running, entry = taken
        is_only = not self._taken and self._queue.is_empty
        parallel = (
            is_only and entry.job.model.intra_op_threads > 1 and self._intra_op.may_run_parallel()
        )
        self._begin(now)
        return _Taken(running, entry, parallel)

    def _compute(self, row: _Taken) -> _Taken | None:
        running, entry = row.running, row.entry
        started = self._clock()
        outcome = _forward(entry, parallel=row.parallel)
        if isinstance(outcome, Exception):
            outcome = self._compute_alone(entry)
        ended = self._clock()
        with self._work:
            self._finish()
            running.active -= 1
            finished = CompletedRow(
                entry, running.batch, outcome, started, ended, running.is_finished, row.parallel
            )
        try:
            with self._work:
                if row.parallel:
                    self._intra_op.record(ended - started, entry.cost * _MICROSECOND)
                return self._take()
        finally:  # whatever happens to the next row, this one is done
            # Comes last, just before this thread computes or waits and so releases the GIL: the
            # loop that it wakes can run at once.
            self._post(self._callbacks.row, finished)

    def _compute_alone(self, entry: Entry) -> Float32 | Exception:
        with self._work:
            self._failed += 1  # from here on no thread takes a new row
            self._finish()
            self._work.wait_for(lambda: not self._taken)
            self._begin(self._clock())
        try:
            return _forward(entry, parallel=False)
        finally:
            with self._work:
                self._failed -= 1
                self._work.notify_all()

    def _begin(self, now: float) -> None:
        self._taken[threading.get_ident()] = self._last_progress = now

    def _finish(self) -> None:
        del self._taken[threading.get_ident()]
        self._last_progress = self._clock()
        if self._failed:
            self._work.notify_all()

    def _post(self, callback: Callable[[*_Args], None], *args: *_Args) -> None:
        self._loop.call_soon_threadsafe(callback, *args)


def _join(threads: Iterable[threading.Thread]) -> None:
    """Join the threads that were started.

    A function, not a method: the thread that waits here keeps its call for a moment after the
    loop has been notified, and everything that this references, such as the models, with it.
    """
    for thread in threads:
        if thread.ident is not None:  # the system may have refused to start it
            thread.join()


def _forward(entry: Entry, *, parallel: bool) -> Float32 | Exception:
    model = entry.job.model
    try:
        return entry.job.finish((model.forward_parallel if parallel else model.forward)(entry.row))
    except Exception as error:  # noqa: BLE001 - it is this request's failure, and nobody else's
        return error
