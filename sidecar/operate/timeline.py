"""PURE: records → what happened in each step of time, in bounded memory.

Steps start at one second, and widen as the time that they cover grows, so that there are never
more than 240.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.operate.distribution import Distribution

_MOST_STEPS = 240
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
# Each is a multiple of the one before, so that steps can be merged.
_WIDTHS = (1, 5, 15, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, _DAY, 7 * _DAY)


Amounts = dict[str, float]


def add(amounts: Amounts, name: str, amount: float) -> None:
    """Add to a named amount, which starts at 0."""
    amounts[name] = amounts.get(name, 0.0) + amount


@dataclass(slots=True)
class Step:
    """What happened in one step: times in ms, memory in bytes, everything else counted."""

    total_ms: Distribution = field(default_factory=Distribution)
    queue_ms: Distribution = field(default_factory=Distribution)
    pss_bytes: Distribution = field(default_factory=Distribution)
    answered: Amounts = field(default_factory=dict)
    failed: Amounts = field(default_factory=dict)

    def merge(self, other: "Step") -> None:
        """Add everything that happened in `other`."""
        self.total_ms.merge(other.total_ms)
        self.queue_ms.merge(other.queue_ms)
        self.pss_bytes.merge(other.pss_bytes)
        for mine, its in ((self.answered, other.answered), (self.failed, other.failed)):
            for name, amount in its.items():
                add(mine, name, amount)


class Timeline:
    """Steps by their time; empty ones are not stored."""

    def __init__(self) -> None:
        self.width = _WIDTHS[0]
        self._steps: dict[int, Step] = {}
        self._first = self._last = 0

    def at(self, seconds: float) -> Step:
        """Return the step that holds a time, in seconds since the epoch."""
        index = int(seconds // self.width)
        if index not in self._steps:
            self._first = min(self._first, index) if self._steps else index
            self._last = max(self._last, index) if self._steps else index
            self._steps[index] = Step()
            if self._last - self._first >= _MOST_STEPS:
                self._widen()
                return self.at(seconds)
        return self._steps[index]

    def steps(self) -> Iterator[tuple[float, Step]]:
        """Yield every step from the first to the last, with its midpoint; some may be empty."""
        if self._steps:
            for index in range(self._first, self._last + 1):
                yield (index + 0.5) * self.width, self._steps.get(index, Step())

    def _widen(self) -> None:
        seconds = (self._last - self._first + 1) * self.width
        fitting = (width for width in _WIDTHS if seconds < width * (_MOST_STEPS - 1))
        # If no width suits, as for a timeline from 1970: a multiple of the last.
        wider = next(fitting, -(-seconds // (_WIDTHS[-1] * _MOST_STEPS // 2)) * _WIDTHS[-1])
        steps, self._steps = self._steps, {}
        for index, step in steps.items():
            self._steps.setdefault(index * self.width // wider, Step()).merge(step)
        self.width = wider
        self._first, self._last = min(self._steps), max(self._steps)
