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

    __slots__ = ("key", "lines", "rank")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.rank: _Rank = (0, 0)
        self.lines: set[object] = set()

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
        self._sharers: dict[Hashable, _S] = {}
        self._lines: dict[object, list[tuple[_Rank, _S]]] = {}
        self._serial = count()
        self._passed = 0

    def __iter__(self) -> Iterator[_S]:
        return iter(self._sharers.values())

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here, or has a debt."""
        return not self._sharers and not self._lines

    @property
    def kinds(self) -> Collection[object]:
        """The kinds that somebody stands in line for."""
        return self._lines.keys()

    def known(self, key: Hashable) -> _S | None:
        """Return the sharer, if it is here or has a debt."""
        return self._sharers.get(key)

    def join(self, key: Hashable) -> _S:
        """Return the sharer; one that is new has to `stand` then."""
        sharer = self._sharers.get(key)
        if sharer is None:
            sharer = self._sharers[key] = self._make(key)
            sharer.rank = self._passed, next(self._serial)
        return sharer

    def stand(self, sharer: _S) -> None:
        """Let `sharer` stand in the lines of all that it has next. After each change of that."""
        for kind in sharer.kinds:
            if kind not in sharer.lines:
                sharer.lines.add(kind)
                heappush(self._lines.setdefault(kind, []), (sharer.rank, sharer))

    def first(self, kind: object = None) -> _S | None:
        """Return whose turn it is: among all, or among those who have something of `kind`."""
        while (line := self._line(kind)) is not None:
            sharer = self._front(line)
            if sharer.has(kind):
                return sharer
            self._leave(line)
        return None

    def charge(self, sharer: _S, cost: int) -> None:
        """Note what the one whose turn it was has taken."""
        tag, _ = sharer.rank
        self._passed = max(self._passed, tag)
        sharer.rank = tag + cost, next(self._serial)
        self.stand(sharer)

    def _line(self, kind: object) -> object:
        """Return the kind whose line is next, None where nobody stands."""
        if kind is not None:
            return kind if kind in self._lines else None
        return min(self._lines, key=lambda each: self._front(each).rank, default=None)

    def _front(self, kind: object) -> _S:
        line = self._lines[kind]
        while (front := line[0])[0] != front[1].rank:  # it was served in another line, or in this
            heapreplace(line, (front[1].rank, front[1]))
        return front[1]

    def _leave(self, kind: object) -> None:
        line = self._lines[kind]
        (tag, _), sharer = heappop(line)
        if not line:
            del self._lines[kind]
        self._passed = max(self._passed, tag)
        sharer.lines.remove(kind)
        if not sharer.lines:
            del self._sharers[sharer.key]
