"""The queue, and the rule for cutting batches. Pure: no threads, loop or clock; `now` is passed in.

Rows wait in two lanes, interactive and bulk; within a lane users take turns, and so do each
user's processes (`fair_queue`). An idle thread takes one row of its lane's current batch. If none
is left, the next batch is cut: at most `MAX_ROWS` rows of one model, and at most `MAX_COST` unless
a single row exceeds it. A running batch holds up only its own lane: the threads leave it for an
interactive row, and come back.

Interactive goes first, but bulk never starves: a bulk row is taken once the interactive rows
that went ahead of it have cost `BULK_WAITS` times what it costs. So bulk gets at least a tenth of
the threads' time while any of it waits, whatever the interactive load.

Rows with equal keys have the same result, so only one of them is computed at a time. Meanwhile,
others leave the queue free of charge as their turns come, and the rest of them once it has landed.
None of them ever waits longer than it would have alone.

Times are seconds on the caller's clock, costs microseconds of one thread (see `Usage`).
"""

from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from client_lib.wire.messages import Priority
from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.fair_queue import FairQueue
from sidecar.serving.scheduler.job import Entry, Job, Key, Usage
from sidecar.serving.scheduler.limits import Excess, LaneUsage, QueueLimits
from sidecar.serving.scheduler.rejections import overloaded, refuse_over, refuse_too_large

MAX_ROWS = 16
# The most that a peer that has just arrived waits for, on top of its lane's turns.
MAX_COST = 100_000
BULK_WAITS = 9
# How many rows, or expired jobs, may leave uncomputed per cut, which blocks the queue.
MAX_LEAVING = 64
# A request is rejected unless it can start within this part of its remaining time. The rest
# absorbs errors of the estimate; and if requests were accepted up to the last moment, small ones
# would always slip in ahead of larger ones.
_START_WITHIN = 0.75


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one model and one lane that were cut together at `cut`, and their tokens in total."""

    id: int
    entries: tuple[Entry, ...]
    tokens: int
    cut: float

    @property
    def model(self) -> ServedModel:
        """The model of every row."""
        return self.entries[0].job.model

    @property
    def priority(self) -> Priority:
        """The lane of every row."""
        return self.entries[0].job.priority

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.entries)

    @property
    def peers(self) -> int:
        """The number of peers that they came from."""
        return len({entry.job.peer for entry in self.entries})

    @property
    def longest_wait(self) -> float:
        """How long its oldest row waited to be cut, in seconds."""
        return self.cut - min(entry.job.arrived for entry in self.entries)


class ActiveBatch:
    """A batch that is being computed: the rows not yet taken, and how many are running."""

    __slots__ = ("active", "batch", "pending")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.pending = deque(batch.entries)
        self.active = 0

    @property
    def is_finished(self) -> bool:
        """Whether none of its rows is left."""
        return not self.active and not self.pending


class _Lane:
    """The rows of one priority: those that wait, and the current batch."""

    def __init__(self) -> None:
        self.fair_queue = FairQueue()
        self.current: ActiveBatch | None = None

    def next_cost(self) -> int:
        """Return the cost of the next row, 0 if there is none."""
        if self.current is not None and self.current.pending:
            return self.current.pending[0].cost
        entry = self.fair_queue.head()
        return entry.cost if entry is not None else 0

    def drop(self, job: Job) -> Batch | None:
        """Drop the rows of `job` that are not yet taken; return the batch if that finishes it."""
        self.fair_queue.drop(job)
        running = self.current
        if running is None or not running.pending:
            return None
        running.pending = deque(entry for entry in running.pending if entry.job is not job)
        return running.batch if running.is_finished else None

    def withdraw(self, entry: Entry) -> Batch | None:
        """Drop one row that is not yet taken; return the batch if that finishes it."""
        running = self.current
        if self.fair_queue.withdraw(entry) or running is None or entry not in running.pending:
            return None
        running.pending.remove(entry)
        return running.batch if running.is_finished else None

    def cut(self, now: float, running: Collection[Key]) -> tuple[Entry, ...]:
        """Take out the next batch's rows. A row that would finish too late is dropped with its job.

        A row that is already `running` is not computed again. If very many leave for these reasons,
        there may be none yet although more wait.
        """
        entries: list[Entry] = []
        left = MAX_COST
        leaving = 0
        entry = self.fair_queue.head()
        while (
            entry is not None
            and len(entries) < MAX_ROWS
            and leaving < MAX_LEAVING
            and (entry.cost <= left or not entries)
        ):
            if now + entry.cost / 1e6 > entry.job.deadline:
                self.fair_queue.drop(entry.job)
                leaving += 1
            elif entry.key in running:
                self.fair_queue.withdraw(entry)
                leaving += 1
            else:
                self.fair_queue.take(entry)
                entries.append(entry)
                left -= entry.cost
            entry = self.fair_queue.head(entries[0].job.model if entries else None)
        return tuple(entries)


class Queue:
    """Rows that wait for one of `threads` threads, each lane within `bounds`.

    A job is accepted or rejected as a whole. Expired jobs are dropped silently; the caller
    enforces the same deadline.
    """

    def __init__(self, bounds: QueueLimits, threads: int) -> None:
        self.bounds = bounds
        self.batches = 0
        self._most = bounds.of_lone_process
        self._threads = threads
        self._interactive, self._bulk = _Lane(), _Lane()
        # The cost of interactive rows that went ahead of bulk and has not been made up for.
        self._owed = 0
        self._running: set[Key] = set()
        # Batches whose last row left uncomputed.
        self._finished: list[Batch] = []

    def push(self, job: Job) -> None:
        """Add a job's rows to its lane.

        Raises `TooLarge` if the job could never be accepted, `Overloaded` if it could be once rows
        have left, `DeadlineExceeded` if it would finish too late.
        """
        refuse_too_large(job.load, self._most)
        fair_queue = self._lane(job.priority).fair_queue
        of_user = fair_queue.load_of_user(job.user)
        waiting = LaneUsage(fair_queue.load, of_user, fair_queue.load_of(job.peer, job.user))
        excess = self.bounds.excess(waiting, job.load)
        if excess.of_all:
            raise overloaded(waiting, self._seconds_until_room(job, waiting, excess))
        left = job.deadline - job.arrived
        self.refuse_if_late(job.priority, job.peer, left, job.user)
        cost = waiting.of_process.cost + job.load.cost
        refuse_over(left, self._seconds_in_turn(job.priority, job.peer, cost, job.user))
        fair_queue.push(job)

    def refuse_if_late(
        self, priority: Priority, peer: Hashable, left: float, user: Hashable = None
    ) -> None:
        """Raise `DeadlineExceeded` if no further row of the `user`'s `peer` can start in time.

        `left` is the seconds until the deadline. This needs no job, and so no tokens.
        """
        cost = self._lane(priority).fair_queue.load_of(peer, user).cost
        refuse_over(_START_WITHIN * left, self._seconds_in_turn(priority, peer, cost, user))

    def take(self, now: float) -> tuple[ActiveBatch, Entry] | None:
        """Return the row to compute next, and its batch; None if there is none.

        After None, more may wait (see `is_empty`), since only a few leave per cut: ask again in a
        moment. A row's key is not handed out again until it has `completed`.
        """
        bulk_cost = self._bulk.next_cost()
        for lane in self._in_order(bulk_cost):
            if (taken := self._take(lane, now)) is not None:
                self._settle(taken[1], bulk_waits=bulk_cost > 0)
                return taken
        return None

    def drop(self, job: Job) -> Batch | None:
        """Drop the rows of `job` that are not yet taken; return the batch if that finishes it."""
        return self._lane(job.priority).drop(job)

    def completed(self, key: Key, others: Iterable[Entry], *, whole: bool = True) -> list[Batch]:
        """Record that the row `key` no longer runs, and that `others` need not be computed.

        Pass `whole=False` if more of these are to follow: until then the row counts as running.
        Returns the batches that have finished without their last row being computed.
        """
        if whole:
            self._running.remove(key)
        for entry in others:
            if batch := self._lane(entry.job.priority).withdraw(entry):
                self._finished.append(batch)
        over, self._finished = self._finished, []
        return over

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._interactive.next_cost() and not self._bulk.next_cost()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs, and no user's past service is remembered."""
        lanes = self._interactive.fair_queue, self._bulk.fair_queue
        return (
            self.is_empty and not self._running and all(fair_queue.is_idle for fair_queue in lanes)
        )

    @property
    def loads(self) -> dict[Priority, Mapping[Hashable, Usage]]:
        """What waits to be cut, by lane and peer."""
        return {
            "interactive": self._interactive.fair_queue.loads,
            "bulk": self._bulk.fair_queue.loads,
        }

    def _lane(self, priority: Priority) -> _Lane:
        return self._bulk if priority == "bulk" else self._interactive

    def _in_order(self, bulk_cost: int) -> tuple[_Lane, _Lane]:
        if 0 < BULK_WAITS * bulk_cost <= self._owed:
            return self._bulk, self._interactive
        return self._interactive, self._bulk

    def _take(self, lane: _Lane, now: float) -> tuple[ActiveBatch, Entry] | None:
        while (running := self._current(lane, now)) is not None:
            entry = running.pending.popleft()
            if entry.key not in self._running:
                self._running.add(entry.key)
                running.active += 1
                return running, entry
            if running.is_finished:
                self._finished.append(running.batch)
        return None

    def _current(self, lane: _Lane, now: float) -> ActiveBatch | None:
        if lane.current is None or not lane.current.pending:
            lane.current = self._cut(lane, now)
        return lane.current

    def _cut(self, lane: _Lane, now: float) -> ActiveBatch | None:
        entries = lane.cut(now, self._running)
        if not entries:
            return None
        self.batches += 1
        tokens = sum(entry.row.tokens for entry in entries)
        return ActiveBatch(Batch(self.batches, entries, tokens, now))

    def _settle(self, entry: Entry, *, bulk_waits: bool) -> None:
        if entry.job.priority == "bulk":
            self._owed = max(0, self._owed - BULK_WAITS * entry.cost)
        elif bulk_waits:
            self._owed += entry.cost

    def _seconds(self, priority: Priority, cost: int) -> float:
        """Return in how many seconds `cost` of a lane will have been computed, at best."""
        first = self._interactive.fair_queue.load.cost if priority == "bulk" else 0
        return (min(first, BULK_WAITS * cost) + cost) / (1e6 * self._threads)

    def _seconds_in_turn(
        self, priority: Priority, peer: Hashable, cost: int, user: Hashable
    ) -> float:
        """Return in how many seconds `cost` of `user`'s `peer` will have been computed, at best."""
        fair_queue = self._lane(priority).fair_queue
        return self._seconds(priority, fair_queue.cost_until(peer, cost, user))

    def _seconds_until_room(self, job: Job, waiting: LaneUsage, excess: Excess) -> float:
        """Return in how many seconds `job` will fit: as its process's rows leave, or all rows."""
        part = self._lane(job.priority).fair_queue.cost_until_part(excess.of_all, job.user)
        in_all = self._seconds(job.priority, part)
        if excess.of_own > 1:
            return in_all
        own = round(excess.of_own * waiting.of_process.cost)
        return min(in_all, self._seconds_in_turn(job.priority, job.peer, own, job.user))
