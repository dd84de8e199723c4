"""A simulation of the daemon's queue and threads, without threads, loop or clock.

Requests arrive, virtual threads compute their rows in a given time, callers cancel, deadlines
pass, and the daemon is killed, whereupon its clients retry with the next one. Equal rows are
computed once for all requests that wait for them. The invariants are checked after every step, and
`finish` checks that nothing was lost. A peer's user is the first part of its name: u/w, u/x, v/y.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from client_lib.wire.errors import DeadlineExceeded, Overloaded, TooLarge
from sidecar.serving.admission.fair_share import OF_USERS
from sidecar.serving.scheduler.job import Entry, Job, Usage
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.scheduler.queue import BULK_WAITS, MAX_COST, MAX_ROWS, ActiveBatch, Queue

from .jobs import job

BOUNDS = QueueLimits(rows=100, tokens=280, bytes=13_000, peer_share=0.6)
LONGEST = 150_000  # the highest cost of a row, in microseconds; more than that of a batch


@dataclass(eq=False)
class Request:
    """A caller's request and its outcome: computed, failed, cancelled, late or rejected.

    Its forwards take `pace` times the expected time; the row at index `poison` fails.
    """

    number: int
    fields: dict
    timeout: float
    pace: float
    poison: int
    outcome: str | None = None
    job: Job | None = None
    taken: int = -1
    done: set = field(default_factory=set)

    @property
    def rows(self):
        return len(self.fields["costs"])


@dataclass(eq=False)
class World:
    threads: int = 2
    now: float = 0.0
    outcomes: Counter = field(default_factory=Counter)
    shared: int = 0

    def __post_init__(self):
        self._serial = count()
        self._requests = {}  # open requests, by number
        self._deadlines = []
        self._start()

    def _start(self):
        self.queue = Queue(BOUNDS, self.threads)
        self._busy = []
        self._jobs = {}
        self._waiting = {}  # entries waiting for a row, by its key
        self._batches = {}
        self._went_ahead = 0
        self._served = {}

    def ask(self, costs, *, timeout=float("inf"), pace=1.0, poison=-1, **fields):
        """Let a request arrive."""
        number = next(self._serial)
        request = Request(number, {"costs": costs, **fields}, timeout, pace, poison)
        self._requests[number] = request
        self._submit(request)

    def cancel(self, which):
        """Cancel one of the open requests."""
        if self._requests:
            numbers = list(self._requests)
            self._settle(self._requests[numbers[which % len(numbers)]], "cancelled")
            self._check()

    def kill(self):
        """Kill the daemon, and send its open requests to the next one."""
        self._start()
        for request in list(self._requests.values()):
            request.taken, request.done = -1, set()
            self._submit(request)

    def advance(self, seconds):
        """Let time pass: forwards finish and deadlines expire."""
        until = self.now + seconds
        while (event := self._next_event()) <= until:
            self.now = event
            if self._busy and self._busy[0][0] == event:
                self._end_row()
            else:
                _, number = heappop(self._deadlines)
                if number in self._requests:
                    self._settle(self._requests[number], "late")
            self._take_all()
        self.now = until

    def finish(self):
        """Check that every accepted request is answered, and that nothing is left behind."""
        self.advance(1e6)
        assert not self._requests
        assert not self._busy
        assert self.queue.take(self.now) is None
        assert self.queue.is_idle
        assert self.queue.loads == {"interactive": {}, "bulk": {}}

    def _submit(self, request):
        costs = request.fields["costs"]
        rest = {key: value for key, value in request.fields.items() if key != "costs"}
        deadline = self.now + request.timeout
        user = user_of(rest.get("peer"))
        row_bytes = 20 * (request.number % 10)
        made = job(
            *costs, arrived=self.now, deadline=deadline, user=user, row_bytes=row_bytes, **rest
        )
        before = self.queue.loads
        try:
            self.queue.push(made)
        except (TooLarge, Overloaded, DeadlineExceeded) as error:
            assert self.queue.loads == before, "rejected, but not as a whole"
            self._settle(request, type(error).__name__)
        else:
            request.job = made
            self._jobs[made] = request
            for entry in made.entries:
                self._waiting.setdefault(entry.key, []).append(entry)
            heappush(self._deadlines, (deadline, request.number))
            self._watch_arrival(made, before[made.priority])
        self._take_all()

    def _settle(self, request, outcome):
        assert request.outcome is None, "answered twice"
        request.outcome = outcome
        self.outcomes[outcome] += 1
        del self._requests[request.number]
        if request.job in self._jobs:
            self.queue.drop(request.job)
            del self._jobs[request.job]
            for entry in request.job.entries:
                if entry in (waiting := self._waiting.get(entry.key, [])):
                    waiting.remove(entry)

    def _next_event(self):
        ends = [self._busy[0][0]] if self._busy else []
        return min([*ends, *(when for when, _ in self._deadlines[:1])], default=float("inf"))

    def _take_all(self):
        """Let idle threads take rows. None idles while a row waits that no other is computing."""
        while len(self._busy) < self.threads and (hand := self.queue.take(self.now)) is not None:
            running, entry = hand
            self._watch_row(running, entry)
            request = self._jobs[entry.job]
            request.taken = entry.index
            end = self.now + request.pace * entry.cost / 1e6
            failed = entry.index == request.poison
            heappush(self._busy, (end, next(self._serial), running, entry, failed))
        self._check()

    def _end_row(self):
        _, _, running, entry, failed = heappop(self._busy)
        running.active -= 1
        landed = self._waiting.pop(entry.key, [])
        self.shared += len(landed) - (entry in landed)
        self.queue.completed(entry.key, [each for each in landed if each != entry])
        for each in landed:
            # Otherwise another row has just settled the request.
            if (request := self._jobs.get(each.job)) is not None:
                self._deliver(request, each.index, failed)

    def _deliver(self, request, index, failed):
        assert index not in request.done
        request.done.add(index)
        if failed:
            self._settle(request, "failed")
        elif len(request.done) == request.rows:
            self._settle(request, "computed")

    # The invariants.

    def _check(self):
        """Check that the queue, its users and its peers are within their limits."""
        own = BOUNDS.of_lone_process
        for peers in self.queue.loads.values():
            assert fits(sum(peers.values(), Usage()), BOUNDS)
            assert all(fits(usage, BOUNDS, OF_USERS) for usage in by_user(peers).values())
            assert all(fits(usage, own) for usage in peers.values())

    def _watch_arrival(self, made, waiting):
        if made.priority == "bulk" and not waiting:
            self._went_ahead = 0
        # Counting starts again when another user, or another process of a user, starts to wait.
        if made.peer not in waiting:
            self._served[made.priority, made.user] = Counter()
        if made.user not in by_user(waiting):
            self._served[made.priority] = Counter()

    def _watch_row(self, running: ActiveBatch, entry: Entry):
        batch = running.batch
        if batch.id not in self._batches:
            self._watch_batch(batch)
        # No loss, no duplication, in order: each row is taken once, and in turn.
        assert entry.index > self._jobs[entry.job].taken
        assert entry.index not in self._jobs[entry.job].done
        assert entry.key not in self._computed_now()
        while (expected := self._batches[batch.id].pop(0)) != entry:
            assert self._needs_no_thread(expected)
        self._watch_bulk(entry)

    def _computed_now(self):
        return {entry.key for *_, entry, _ in self._busy}

    def _needs_no_thread(self, entry):
        """Whether the request of `entry` has left, or its row has been or is being computed."""
        request = self._jobs.get(entry.job)
        return not request or entry.index in request.done or entry.key in self._computed_now()

    def _watch_batch(self, batch):
        entries = list(batch.entries)
        self._batches[batch.id] = entries
        assert len(entries) <= MAX_ROWS
        assert len({(e.job.model, e.job.priority) for e in entries}) == 1
        assert len(entries) == 1 or sum(e.cost for e in entries) <= MAX_COST
        assert all(batch.cut + e.cost / 1e6 <= e.job.deadline for e in entries)
        for entry in entries:
            self._watch_turn(entry.job, entry.cost)

    def _watch_turn(self, made, cost):
        """Check that no waiting user is served much more than another, and no peer of a user."""
        waiting = self.queue.loads[made.priority]
        siblings = [peer for peer in waiting if user_of(peer) == made.user]
        self._watch_share(made.priority, made.user, cost, by_user(waiting))
        self._watch_share((made.priority, made.user), made.peer, cost, siblings)

    def _watch_share(self, of, who, cost, waiting):
        served = self._served[of]
        served[who] += cost
        # A batch may be for a model that only one of them uses.
        shares = [served[each] for each in waiting]
        assert max(shares, default=0) - min(shares, default=0) <= 2 * (MAX_COST + LONGEST)

    def _watch_bulk(self, entry):
        """Check that bulk work never starves."""
        if entry.job.priority == "bulk":
            self._went_ahead = 0
        elif self._waits("bulk"):
            self._went_ahead += entry.cost
            assert self._went_ahead <= (BULK_WAITS + 1) * LONGEST

    def _waits(self, priority):
        return bool(self.queue.loads[priority])


def user_of(peer):
    """Return the first part of the peer's name."""
    return peer and peer.partition("/")[0]


def by_user(peers):
    """Return the usage of `peers`, added up by user."""
    usages = {}
    for peer, usage in peers.items():
        usages[user_of(peer)] = usages.get(user_of(peer), Usage()) + usage
    return usages


def fits(usage, most, part=1):
    return (
        usage.rows <= part * most.rows
        and usage.tokens <= part * most.tokens
        and usage.bytes <= part * most.bytes
    )
