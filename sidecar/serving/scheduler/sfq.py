"""Start-time fair queueing: whoever shares something takes turns by what the turns cost. Pure.

A sharer's tag is how much it has had. The sharer with the lowest tag is next, and what it takes
raises its tag by its cost. Whoever comes back, or comes for the first time, starts at the tag
that was passed last: nobody saves up turns while away, and nobody sheds what it has had by
leaving for a moment.

What is next may be asked for by kind. Each kind has a line, a heap by tag, so that nobody who
has something else is looked at. A sharer stands in the line of every kind that it has next, and
perhaps in others from before: it leaves those when its turn comes in them, and is forgotten once
it stands in none. A tag that was raised is noticed in the same way.
"""

from collections.abc import Callable, Collection, Hashable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeAlias, TypeVar

_Rank: TypeAlias = tuple[int, int]  # the tag; of equal ones the first to have it


class Flow:
    """Whoever takes turns. All but its key and what it has next is its `StartTimeFairQueue`'s."""

    __slots__ = ("heaps", "key", "rank")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.rank: _Rank = (0, 0)
        self.heaps: set[object] = set()

    @property
    def kinds(self) -> Collection[object]:
        """The kinds of what it has next."""
        raise NotImplementedError

    def has(self, kind: object) -> bool:
        """Whether it has something next that is of `kind`; None: anything."""
        return bool(self.kinds) if kind is None else kind in self.kinds


_S = TypeVar("_S", bound=Flow)


class StartTimeFairQueue(Generic[_S]):
    """Those who share, by key; `make` makes one that is new."""

    def __init__(self, make: Callable[[Hashable], _S]) -> None:
        self._make = make
        self._flows: dict[Hashable, _S] = {}
        self._heaps: dict[object, list[tuple[_Rank, _S]]] = {}
        self._serial = count()
        self._virtual_time = 0

    def __iter__(self) -> Iterator[_S]:
        return iter(self._flows.values())

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here, or has a debt."""
        return not self._flows and not self._heaps

    @property
    def kinds(self) -> Collection[object]:
        """The kinds that somebody stands in line for."""
        return self._heaps.keys()

    def find(self, key: Hashable) -> _S | None:
        """Return the sharer, if it is here or has a debt."""
        return self._flows.get(key)

    def flow(self, key: Hashable) -> _S:
        """Return the sharer; one that is new has to `enqueue` then."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = self._make(key)
            flow.rank = self._virtual_time, next(self._serial)
        return flow

    def enqueue(self, flow: _S) -> None:
        """Let `flow` stand in the lines of all that it has next. After each change of that."""
        for kind in flow.kinds:
            if kind not in flow.heaps:
                flow.heaps.add(kind)
                heappush(self._heaps.setdefault(kind, []), (flow.rank, flow))

    def head(self, kind: object = None) -> _S | None:
        """Return whose turn it is: among all, or among those who have something of `kind`."""
        while (heap := self._next_kind(kind)) is not None:
            flow = self._top(heap)
            if flow.has(kind):
                return flow
            self._dequeue(heap)
        return None

    def charge(self, flow: _S, cost: int) -> None:
        """Note what the one whose turn it was has taken."""
        tag, _ = flow.rank
        self._virtual_time = max(self._virtual_time, tag)
        flow.rank = tag + cost, next(self._serial)
        self.enqueue(flow)

    def _next_kind(self, kind: object) -> object:
        """Return the kind whose line is next, None where nobody stands."""
        if kind is not None:
            return kind if kind in self._heaps else None
        return min(self._heaps, key=lambda each: self._top(each).rank, default=None)

    def _top(self, kind: object) -> _S:
        heap = self._heaps[kind]
        while (top := heap[0])[0] != top[1].rank:  # it was served in another line, or in this
            heapreplace(heap, (top[1].rank, top[1]))
        return top[1]

    def _dequeue(self, kind: object) -> None:
        heap = self._heaps[kind]
        (tag, _), flow = heappop(heap)
        if not heap:
            del self._heaps[kind]
        self._virtual_time = max(self._virtual_time, tag)
        flow.heaps.remove(kind)
        if not flow.heaps:
            del self._flows[flow.key]
