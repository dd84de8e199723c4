"""PURE: records → counts, sums and percentiles by group, in bounded memory."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sidecar.operate.distribution import Distribution, Summary
from sidecar.operate.query import number, text
from sidecar.operate.records import Record

TIMES = {"minute": 16, "hour": 13, "day": 10}
"""Units of time to group by, in UTC, besides fields: the length of their ISO time prefix."""

OTHERS = "(others)"

_MOST_GROUPS = 10_000
_LEAST_SAMPLE = 1e-9

_PROSE = {"reason", "message"}
_NUMBERS = re.compile(r"\b\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Group:
    """The records with one key: their count, and summaries of their numeric fields."""

    key: tuple[Any, ...]
    count: float
    summaries: Mapping[str, Summary]


class Aggregation:
    """Counts records by the fields `by`, and summarises the fields `stats` of each group.

    A sampled record (`sample`, the share that is logged) counts for all that it represents.
    Beyond 10,000 groups, records of new ones are counted as `(others)`. Numbers in a reason or
    message do not split groups: they are read as `#`.
    """

    def __init__(self, by: Sequence[str] = (), stats: Sequence[str] = ()) -> None:
        self._key = _key_of(by)
        self._others = (OTHERS,) * len(by)
        self._stats = tuple(stats)
        self._groups: dict[tuple[Any, ...], _Tally] = {}

    def add(self, record: Record) -> None:
        """Count a record."""
        weight = weight_of(record.fields)
        tally = self._tally(self._key(record))
        tally.count += weight
        for name in self._stats:
            if (value := number(record.fields.get(name))) is not None:
                tally.values[name].add(value, weight)

    def groups(self) -> list[Group]:
        """Return the groups, largest first."""
        groups = [
            Group(key, tally.count, {name: d.summary() for name, d in tally.values.items()})
            for key, tally in self._groups.items()
        ]
        return sorted(groups, key=lambda group: -group.count)

    def _tally(self, key: tuple[Any, ...]) -> "_Tally":
        if key not in self._groups:
            if len(self._groups) >= _MOST_GROUPS:
                key = self._others
            self._groups.setdefault(key, _Tally())
        return self._groups[key]


class _Tally:
    def __init__(self) -> None:
        self.count = 0.0
        self.values: defaultdict[str, Distribution] = defaultdict(Distribution)


def weight_of(fields: Mapping[str, Any]) -> float:
    """Return how many events a record represents: one, or 1 / `sample`."""
    sample = number(fields.get("sample", 1))
    return 1 / sample if sample is not None and _LEAST_SAMPLE <= sample < 1 else 1.0


def _key_of(by: Sequence[str]) -> Callable[[Record], tuple[Any, ...]]:
    parts = [_part_of(name) for name in by]
    return lambda record: tuple(part(record) for part in parts)


def _part_of(name: str) -> Callable[[Record], Any]:
    if name in TIMES:
        return lambda record: datetime.fromtimestamp(record.at, UTC).isoformat()[: TIMES[name]]
    if name in _PROSE:
        return lambda record: _NUMBERS.sub("#", text(record.fields.get(name, "")))
    return lambda record: _hashable(record.fields.get(name))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else text(value)
