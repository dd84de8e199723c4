"""Peers take turns by what their rows cost: start-time fair queueing. Pure.

A peer's tag is how much it has had. The peer with the lowest tag is next, and each row that is
taken raises its tag by the row's cost. Whoever comes back, or comes for the first time, starts
at the tag that was passed last: nobody saves up turns while away, and nobody sheds what it has
had by leaving for a moment. So of two peers that both wait throughout, neither is ever served
more than the other by over the cost of one row each; of one batch each, if they ask different
models.

Rows of one peer are taken in order of arrival. Taking a row costs O(log peers), however many
rows wait.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import TypeAlias

from sidecar.serving.job import Entry, Job, Load
from sidecar.serving.roster import ServedModel


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


class _Peer:
    """One peer's jobs, each with its rows that still wait: one at least."""

    __slots__ = ("jobs", "key", "load", "tag")

    def __init__(self, key: Hashable, tag: int) -> None:
        self.key = key
        self.tag = tag
        self.load = Load()
        # A plain dict would search for its first key through all that have left.
        self.jobs: OrderedDict[Job, _Rest] = OrderedDict()

    @property
    def model(self) -> ServedModel | None:
        """The model of the row that is next; None where none waits."""
        return next(iter(self.jobs)).model if self.jobs else None


_Line: TypeAlias = list[tuple[int, int, _Peer]]


class Turns:
    """The rows of one lane that wait to be cut."""

    def __init__(self) -> None:
        self.load = Load()
        self._peers: dict[Hashable, _Peer] = {}
        # Heaps of (tag, serial, peer), one a model: a batch looks at no other model's peers.
        # Every known peer stands in one line exactly, and that may be the wrong one: its rows
        # may have left in the meantime. It is moved, or forgotten, when its turn comes.
        self._lines: dict[ServedModel, _Line] = {}
        self._serial = count()
        self._passed = 0

    def push(self, job: Job) -> None:
        """Add a job's rows behind its peer's others."""
        peer = self._peers.get(job.peer)
        if peer is None:
            peer = self._peers[job.peer] = _Peer(job.peer, self._passed)
            self._stand(peer, job.model)
        peer.jobs[job] = _Rest()
        self._grow(peer, job.load)

    def drop(self, job: Job) -> None:
        """Forget the rows of `job` that still wait, if there are any."""
        peer = self._peers.get(job.peer)
        if peer is not None and job in peer.jobs:
            rest = peer.jobs.pop(job)
            gone = sum((Entry(job, index).load for index in rest.gone), Load())
            self._shrink(peer, job.load_from(rest.next) - gone)

    def withdraw(self, entry: Entry) -> bool:
        """Take a row out at any place, at no charge; False where it has left already."""
        peer = self._peers.get(entry.job.peer)
        if peer is None or entry.job not in peer.jobs:
            return False
        return self._remove(peer, entry)

    def head(self, model: ServedModel | None = None) -> Entry | None:
        """Return the row whose turn it is: among all, or among those of `model`."""
        while (line := self._line(model)) is not None:
            _, _, peer = self._lines[line][0]
            if peer.model is line:
                job, rest = next(iter(peer.jobs.items()))
                return Entry(job, rest.next)
            self._leave(line)
            if peer.model is not None:
                self._stand(peer, peer.model)
            else:
                del self._peers[peer.key]
        return None

    def take(self, entry: Entry) -> None:
        """Take out a row that `head` has just returned, and charge its peer."""
        job = entry.job
        peer = self._leave(job.model)
        assert peer.key == job.peer
        self._remove(peer, entry)
        peer.tag += entry.cost
        self._stand(peer, peer.model or job.model)

    def cost_until(self, key: Hashable, cost: int) -> int:
        """Return what all peers will have been served once `key` has been served `cost`.

        That is with the peers that wait now, in O(peers).
        """
        others = (peer.load.cost for peer in self._peers.values() if peer.key != key)
        return cost + sum(min(cost, other) for other in others)

    def load_of(self, key: Hashable) -> Load:
        """Return what waits of one peer."""
        peer = self._peers.get(key)
        return peer.load if peer is not None else Load()

    @property
    def loads(self) -> Mapping[Hashable, Load]:
        """What waits, by peer."""
        return {key: peer.load for key, peer in self._peers.items() if peer.jobs}

    def _line(self, model: ServedModel | None) -> ServedModel | None:
        """Return the model whose line is next, None where nobody stands."""
        if model is not None:
            return model if model in self._lines else None
        return min(self._lines, key=lambda each: self._lines[each][0][:2], default=None)

    def _stand(self, peer: _Peer, model: ServedModel) -> None:
        heappush(self._lines.setdefault(model, []), (peer.tag, next(self._serial), peer))

    def _leave(self, model: ServedModel) -> _Peer:
        line = self._lines[model]
        tag, _, peer = heappop(line)
        if not line:
            del self._lines[model]
        self._passed = max(self._passed, tag)
        return peer

    def _remove(self, peer: _Peer, entry: Entry) -> bool:
        rest = peer.jobs[entry.job]
        if not rest.remove(entry.index):
            return False
        if rest.next == len(entry.job.rows):
            del peer.jobs[entry.job]
        self._shrink(peer, entry.load)
        return True

    def _grow(self, peer: _Peer, load: Load) -> None:
        peer.load += load
        self.load += load

    def _shrink(self, peer: _Peer, load: Load) -> None:
        peer.load -= load
        self.load -= load
