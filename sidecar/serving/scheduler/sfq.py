"""Start-time fair queueing: flows take turns, weighted by what the turns cost. Pure.

A flow's tag is how much it has been served. The flow with the lowest tag is next, and serving it
raises its tag by the cost. A flow that is new or comes back starts at the tag served last: it
cannot save up turns while away, and cannot shed its debt by leaving for a moment.

The next flow can be requested by kind. Each kind has a heap by tag, so that flows with something
else next are not examined. A flow is in the heap of every kind that it has next, and perhaps still
in others: it leaves those when its turn comes in them, and is forgotten once it is in none. A tag
that was raised is noticed in the same way.
"""

from collections.abc import Callable, Collection, Hashable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeAlias, TypeVar

_Rank: TypeAlias = tuple[int, int]  # the tag; among equal tags, the flow that had it first


class Flow:
    """A party that takes turns. `StartTimeFairQueue` manages all but `key` and `kinds`."""

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
        """Whether it has something of `kind` next; None matches any kind."""
        return bool(self.kinds) if kind is None else kind in self.kinds


_S = TypeVar("_S", bound=Flow)


class StartTimeFairQueue(Generic[_S]):
    """Flows by key; `make` creates a new one."""

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
        """Whether no flow waits or is remembered."""
        return not self._flows and not self._heaps

    @property
    def kinds(self) -> Collection[object]:
        """The kinds that some flow waits for."""
        return self._heaps.keys()

    def find(self, key: Hashable) -> _S | None:
        """Return the flow, if it waits or is remembered."""
        return self._flows.get(key)

    def flow(self, key: Hashable) -> _S:
        """Return the flow, creating it if needed; `enqueue` a new one afterwards."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = self._make(key)
            flow.rank = self._virtual_time, next(self._serial)
        return flow

    def enqueue(self, flow: _S) -> None:
        """Add `flow` to the heaps of all that it has next. Call this after each change of that."""
        for kind in flow.kinds:
            if kind not in flow.heaps:
                flow.heaps.add(kind)
                heappush(self._heaps.setdefault(kind, []), (flow.rank, flow))

    def head(self, kind: object = None) -> _S | None:
        """Return the flow whose turn it is: among all, or among those with something of `kind`."""
        while (next_kind := self._next_kind(kind)) is not None:
            flow = self._top(next_kind)
            if flow.has(kind):
                return flow
            self._dequeue(next_kind)
        return None

    def charge(self, flow: _S, cost: int) -> None:
        """Charge the flow whose turn it was."""
        tag, _ = flow.rank
        self._virtual_time = max(self._virtual_time, tag)
        flow.rank = tag + cost, next(self._serial)
        self.enqueue(flow)

    def _next_kind(self, kind: object) -> object:
        """Return the kind whose heap is next, None if there is none."""
        if kind is not None:
            return kind if kind in self._heaps else None
        return min(self._heaps, key=lambda each: self._top(each).rank, default=None)

    def _top(self, kind: object) -> _S:
        heap = self._heaps[kind]
        while (top := heap[0])[0] != top[1].rank:  # served since, from this heap or another
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
