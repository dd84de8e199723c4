"""The rows of one lane take turns by cost: users first, then each user's processes. Pure.

Of two users that both wait throughout, neither is ever served more than the other by over the
cost of one row each, and so it is with two processes of one user; of one batch each, if they ask
different models. However many processes a user has or begins, he gains nothing by it.

Rows of one process are taken in order of arrival. Taking a row costs O(log users) and O(log
processes), however many rows wait.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping
from math import ceil

from sidecar.serving.registry import ServedModel
from sidecar.serving.scheduler.job import Entry, Job, Usage
from sidecar.serving.scheduler.sfq import Flow, StartTimeFairQueue


class _Rest:
    """Which rows of a job still wait: those from `next` on that are not `gone`."""

    __slots__ = ("gone", "next")

    def __init__(self) -> None:
        self.next = 0
        self.gone: set[int] = set()

    def remove(self, index: int) -> bool:
        """Take a row out; False where it has left already."""
        if index < self.next or index in self.gone:
            return False
        self.gone.add(index)
        while self.next in self.gone:
            self.gone.remove(self.next)
            self.next += 1
        return True


class _Process(Flow):
    """One process's jobs, each with its rows that still wait: one at least."""

    __slots__ = ("jobs", "load")

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.load = Usage()
        # A plain dict would search for its first key through all that have left.
        self.jobs: OrderedDict[Job, _Rest] = OrderedDict()

    @property
    def kinds(self) -> Collection[object]:
        """The model of the row that is next, if one is."""
        return (next(iter(self.jobs)).model,) if self.jobs else ()

    @property
    def head(self) -> Entry:
        """The row that is next."""
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
        """The models that his processes stand in line for."""
        return self.processes.kinds

    def has(self, kind: object) -> bool:
        """Whether a process of his has a row of that model next."""
        return self.processes.head(kind) is not None


class FairQueue:
    """The rows of one lane that wait to be cut."""

    def __init__(self) -> None:
        self._users = StartTimeFairQueue(_User)

    def push(self, job: Job) -> None:
        """Add a job's rows behind its process's others."""
        user = self._users.flow(job.user)
        process = user.processes.flow(job.peer)
        process.jobs[job] = _Rest()
        self._grow(user, process, job.load)
        self._stand(user, process)

    def drop(self, job: Job) -> None:
        """Forget the rows of `job` that still wait, if there are any."""
        if (found := self._find(job)) is not None:
            _, process = found
            rest = process.jobs.pop(job)
            gone = sum((Entry(job, index).load for index in rest.gone), Usage())
            self._shrink(*found, job.load_from(rest.next) - gone)
            self._stand(*found)

    def withdraw(self, entry: Entry) -> bool:
        """Take a row out at any place, at no charge; False where it has left already."""
        found = self._find(entry.job)
        if found is None or not self._remove(*found, entry):
            return False
        self._stand(*found)
        return True

    def head(self, model: ServedModel | None = None) -> Entry | None:
        """Return the row whose turn it is: among all, or among those of `model`."""
        user = self._users.head(model)
        process = user.processes.head(model) if user is not None else None
        return process.head if process is not None else None

    def take(self, entry: Entry) -> None:
        """Take out a row that `head` has just returned, and charge its process and its user."""
        found = self._find(entry.job)
        assert found is not None
        user, process = found
        self._remove(user, process, entry)
        user.processes.charge(process, entry.cost)
        self._users.charge(user, entry.cost)

    def cost_until(self, peer: Hashable, cost: int, user: Hashable = None) -> int:
        """Return what all will have been served once the `user`'s `peer` has been served `cost`.

        That is with those that wait now, in O(users) and O(processes of the user).
        """
        find = self._users.find(user)
        siblings = find.processes if find is not None else ()
        of_user = cost + _served((each.load for each in siblings if each.key != peer), cost)
        return of_user + _served((each.load for each in self._users if each.key != user), of_user)

    def cost_until_part(self, part: float, user: Hashable) -> int:
        """Return what all will have been served once `part` of what waits has left everywhere.

        That is of each other user's, and of each process's of `user`: those who have most are
        the last.
        """
        find = self._users.find(user)
        own = [each.load for each in find.processes] if find is not None else []
        others = [each.load for each in self._users if each.key != user]
        of_user = _served(own, _part_of_longest(own, part))
        level = max(of_user, _part_of_longest(others, part))
        return of_user + _served(others, level)

    @property
    def load(self) -> Usage:
        """What waits in all, in O(users)."""
        return sum((user.load for user in self._users), Usage())

    def load_of_user(self, user: Hashable) -> Usage:
        """Return what waits of one user."""
        find = self._users.find(user)
        return find.load if find is not None else Usage()

    def load_of(self, peer: Hashable, user: Hashable = None) -> Usage:
        """Return what waits of one process of `user`."""
        find = self._users.find(user)
        process = find.processes.find(peer) if find is not None else None
        return process.load if process is not None else Usage()

    @property
    def loads(self) -> Mapping[Hashable, Usage]:
        """What waits, by process. None of them is of two users."""
        processes = (process for user in self._users for process in user.processes)
        return {process.key: process.load for process in processes if process.jobs}

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nobody is remembered for what he has had."""
        return self._users.is_empty

    def _find(self, job: Job) -> tuple[_User, _Process] | None:
        """Return whose job it is, None where no row of it waits."""
        user = self._users.find(job.user)
        process = user.processes.find(job.peer) if user is not None else None
        if user is None or process is None or job not in process.jobs:
            return None
        return user, process

    def _stand(self, user: _User, process: _Process) -> None:
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
    """Return what those with `loads` have been served once each has had `cost`, or all of it."""
    return sum(min(cost, load.cost) for load in loads)


def _part_of_longest(loads: Iterable[Usage], part: float) -> int:
    """Return what each has had at most once `part` of all `loads` has been served in turn."""
    return ceil(part * max((load.cost for load in loads), default=0))
