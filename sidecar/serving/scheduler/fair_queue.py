"""Share a lane by cost: users take turns, and so do the processes of each user. Pure.

If two users both wait throughout, neither is ever served more than the other by over the cost
of one row each, and likewise two processes of one user; of one batch each, if they use different
models. A user gains nothing by having or starting more processes.

Rows of one process are taken in order of arrival. Taking a row costs O(log users) and O(log
processes), however many rows wait.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping
from math import ceil

from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.job import Entry, Job, Usage
from sidecar.serving.scheduler.sfq import Flow, StartTimeFairQueue


class _Remaining:
    """The rows of a job that still wait: those from `next` on that are not in `gone`."""

    __slots__ = ("gone", "next")

    def __init__(self) -> None:
        self.next = 0
        self.gone: set[int] = set()

    def remove(self, index: int) -> bool:
        """Remove a row; return False if it has already left."""
        if index < self.next or index in self.gone:
            return False
        self.gone.add(index)
        while self.next in self.gone:
            self.gone.remove(self.next)
            self.next += 1
        return True


class _Process(Flow):
    """One process's jobs, each with its rows that still wait, at least one."""

    __slots__ = ("jobs", "load")

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.load = Usage()
        # Finding the first key of a plain dict would scan all the keys removed before it.
        self.jobs: OrderedDict[Job, _Remaining] = OrderedDict()

    @property
    def kinds(self) -> Collection[object]:
        """The model of the next row, if there is one."""
        return (next(iter(self.jobs)).model,) if self.jobs else ()

    @property
    def head(self) -> Entry:
        """The next row."""
        job, rest = next(iter(self.jobs.items()))
        return Entry(job, rest.next)


class _User(Flow):
    """One user's processes."""

    __slots__ = ("load", "processes")

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.load = Usage()
        self.processes = StartTimeFairQueue(_Process)

    @property
    def kinds(self) -> Collection[object]:
        """The models that its processes wait for."""
        return self.processes.kinds

    def has(self, kind: object) -> bool:
        """Whether one of its processes has a row of that model next."""
        return self.processes.head(kind) is not None


class FairQueue:
    """The rows of one lane that wait to be cut into a batch."""

    def __init__(self) -> None:
        self._users = StartTimeFairQueue(_User)

    def push(self, job: Job) -> None:
        """Append a job's rows to those of its process."""
        user = self._users.flow(job.user)
        process = user.processes.flow(job.peer)
        process.jobs[job] = _Remaining()
        self._grow(user, process, job.load)
        self._enqueue(user, process)

    def drop(self, job: Job) -> None:
        """Drop the rows of `job` that still wait, if any."""
        if (found := self._find(job)) is not None:
            _, process = found
            rest = process.jobs.pop(job)
            gone = sum((Entry(job, index).load for index in rest.gone), Usage())
            self._shrink(*found, job.load_from(rest.next) - gone)
            self._enqueue(*found)

    def withdraw(self, entry: Entry) -> bool:
        """Remove a row from any position, free of charge; return False if it has already left."""
        found = self._find(entry.job)
        if found is None or not self._remove(*found, entry):
            return False
        self._enqueue(*found)
        return True

    def head(self, model: ServedModel | None = None) -> Entry | None:
        """Return the next row: of all, or of `model`."""
        user = self._users.head(model)
        process = user.processes.head(model) if user is not None else None
        return process.head if process is not None else None

    def take(self, entry: Entry) -> None:
        """Remove the row that `head` has just returned, and charge its process and its user."""
        found = self._find(entry.job)
        assert found is not None
        user, process = found
        self._remove(user, process, entry)
        user.processes.charge(process, entry.cost)
        self._users.charge(user, entry.cost)

    def cost_until(self, peer: Hashable, cost: int, user: Hashable = None) -> int:
        """Return the total cost served by the time the `user`'s `peer` has been served `cost`.

        Counts only what waits now. Takes O(users) plus O(processes of the user).
        """
        owner = self._users.find(user)
        siblings = owner.processes if owner is not None else ()
        of_user = cost + _served((each.load for each in siblings if each.key != peer), cost)
        return of_user + _served((each.load for each in self._users if each.key != user), of_user)

    def cost_until_part(self, part: float, user: Hashable) -> int:
        """Return the total cost served by the time `part` of every backlog has been served.

        Backlogs are those of each other user and of each process of `user`; the longest decides.
        """
        owner = self._users.find(user)
        own = [each.load for each in owner.processes] if owner is not None else []
        others = [each.load for each in self._users if each.key != user]
        of_user = _served(own, _part_of_longest(own, part))
        level = max(of_user, _part_of_longest(others, part))
        return of_user + _served(others, level)

    @property
    def load(self) -> Usage:
        """Everything that waits, in O(users)."""
        return sum((user.load for user in self._users), Usage())

    def load_of_user(self, user: Hashable) -> Usage:
        """Return what waits for one user."""
        owner = self._users.find(user)
        return owner.load if owner is not None else Usage()

    def load_of(self, peer: Hashable, user: Hashable = None) -> Usage:
        """Return what waits for one process of `user`."""
        owner = self._users.find(user)
        process = owner.processes.find(peer) if owner is not None else None
        return process.load if process is not None else Usage()

    @property
    def loads(self) -> Mapping[Hashable, Usage]:
        """What waits, by process. A process belongs to a single user."""
        processes = (process for user in self._users for process in user.processes)
        return {process.key: process.load for process in processes if process.jobs}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and no user's past service is remembered."""
        return self._users.is_empty

    def _find(self, job: Job) -> tuple[_User, _Process] | None:
        """Return the user and the process of `job`; None if no row of it waits."""
        user = self._users.find(job.user)
        process = user.processes.find(job.peer) if user is not None else None
        if user is None or process is None or job not in process.jobs:
            return None
        return user, process

    def _enqueue(self, user: _User, process: _Process) -> None:
        user.processes.enqueue(process)
        self._users.enqueue(user)

    def _remove(self, user: _User, process: _Process, entry: Entry) -> bool:
        rest = process.jobs[entry.job]
        if not rest.remove(entry.index):
            return False
        if rest.next == len(entry.job.rows):
            del process.jobs[entry.job]
        self._shrink(user, process, entry.load)
        return True

    def _grow(self, user: _User, process: _Process, load: Usage) -> None:
        process.load += load
        user.load += load

    def _shrink(self, user: _User, process: _Process, load: Usage) -> None:
        process.load -= load
        user.load -= load


def _served(loads: Iterable[Usage], cost: int) -> int:
    """Return what flows with `loads` have been served once each has had `cost`, or all it has."""
    return sum(min(cost, load.cost) for load in loads)


def _part_of_longest(loads: Iterable[Usage], part: float) -> int:
    """Return the most that any flow has had once `part` of all `loads` has been served in turn."""
    return ceil(part * max((load.cost for load in loads), default=0))
