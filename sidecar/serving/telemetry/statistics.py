"""Statistics of the daemon's work, since its start and over the last minutes.

Everything is counted in periods of one minute. A finished period is added to the total, and kept
until it is no longer recent, so each request is counted once, and memory stays constant.
Recording takes about a microsecond.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from client_lib.wire.messages import Priority
from sidecar.serving.results import Answer
from sidecar.serving.telemetry.histogram import Histogram

_PERIOD_SECONDS = 60.0
_RECENT_PERIODS = 5


class Answered:
    """The requests of one operation and lane that were answered with a result.

    Of their `texts`, `cached` came from the result cache, and `shared` from the computation of an
    equal text.
    """

    __slots__ = (
        "cached", "compute_ms", "queue_ms", "shared", "texts", "tokenize_ms", "tokens", "total_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.texts = 0
        self.tokens = 0
        self.cached = 0
        self.shared = 0
        self.queue_ms = Histogram()
        self.tokenize_ms = Histogram()
        self.compute_ms = Histogram()
        self.total_ms = Histogram()

    def record(self, answer: Answer) -> None:
        """Count one request."""
        timings = answer.timings
        self.texts += answer.rows
        self.tokens += answer.tokens
        self.cached += timings.cached_rows
        self.shared += timings.shared_rows
        self.queue_ms.record(timings.queue_ms)
        self.tokenize_ms.record(timings.tokenize_ms)
        self.compute_ms.record(timings.compute_ms)
        self.total_ms.record(timings.total_ms)

    def add(self, other: "Answered") -> None:
        """Add the counts of `other`."""
        self.texts += other.texts
        self.tokens += other.tokens
        self.cached += other.cached
        self.shared += other.shared
        self.queue_ms.add(other.queue_ms)
        self.tokenize_ms.add(other.tokenize_ms)
        self.compute_ms.add(other.compute_ms)
        self.total_ms.add(other.total_ms)

    def to_map(self) -> dict[str, Any]:
        """Return the counts as `status` reports them."""
        return {
            "completed": self.total_ms.count,
            "texts": self.texts,
            "tokens": self.tokens,
            "cached": self.cached,
            "shared": self.shared,
            "queue_ms": self.queue_ms.to_map(),
            "tokenize_ms": self.tokenize_ms.to_map(),
            "compute_ms": self.compute_ms.to_map(),
            "total_ms": self.total_ms.to_map(),
        }


class Batches:
    """The batches of one lane: the distributions of their rows and tokens."""

    __slots__ = ("rows", "tokens")

    def __init__(self) -> None:
        self.rows = Histogram()
        self.tokens = Histogram()

    def record(self, rows: int, tokens: int) -> None:
        """Count one batch."""
        self.rows.record(rows)
        self.tokens.record(tokens)

    def add(self, other: "Batches") -> None:
        """Add the counts of `other`."""
        self.rows.add(other.rows)
        self.tokens.add(other.tokens)

    def to_map(self) -> dict[str, Any]:
        """Return the counts as `status` reports them."""
        return {"rows": self.rows.to_map(), "tokens": self.tokens.to_map()}


class Period:
    """The counts of a period of time.

    `failed` counts errors by operation and code; `not_admitted`, those of them that were rejected
    at admission, by lane and code; `refused`, rejected connections and frames, by code.
    """

    def __init__(self) -> None:
        self.answered: defaultdict[tuple[str, Priority], Answered] = defaultdict(Answered)
        self.batches: defaultdict[Priority, Batches] = defaultdict(Batches)
        self.failed: Counter[tuple[str, str]] = Counter()
        self.not_admitted: Counter[tuple[Priority, str]] = Counter()
        self.refused: Counter[str] = Counter()

    def add(self, other: "Period") -> None:
        """Add the counts of `other`."""
        for key, answered in other.answered.items():
            self.answered[key].add(answered)
        for lane, batches in other.batches.items():
            self.batches[lane].add(batches)
        self.failed.update(other.failed)
        self.not_admitted.update(other.not_admitted)
        self.refused.update(other.refused)

    @property
    def completed(self) -> int:
        """The number of requests that were answered with a result."""
        return sum(answered.total_ms.count for answered in self.answered.values())

    @property
    def failed_by_code(self) -> dict[str, int]:
        """The numbers of requests that were answered with an error, or cancelled, by code."""
        codes: Counter[str] = Counter()
        for (_, code), count in self.failed.items():
            codes[code] += count
        return dict(codes)

    def to_map(self) -> dict[str, Any]:
        """Return the counts as `status` reports them: by operation, lane and code."""
        return {
            "requests": _nested((key, each.to_map()) for key, each in self.answered.items()),
            "failed": _nested(self.failed.items()),
            "not_admitted": _nested(self.not_admitted.items()),
            "refused": dict(self.refused),
            "batches": {lane: batches.to_map() for lane, batches in self.batches.items()},
        }


class Statistics:
    """The counts of all periods. Use it on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before = Period()  # the sum of the finished periods
        self._recent: deque[tuple[float, Period]] = deque()
        self._until = float("-inf")

    def answered(self, op: str, priority: Priority, answer: Answer) -> None:
        """Count a request that was answered with a result."""
        self._now().answered[op, priority].record(answer)

    def failed(self, op: str, code: str) -> None:
        """Count a request that was answered with an error, or cancelled."""
        self._now().failed[op, code] += 1

    def not_admitted(self, priority: Priority, code: str) -> None:
        """Count a request that was rejected at admission; it is also counted as failed."""
        self._now().not_admitted[priority, code] += 1

    def refused(self, code: str) -> None:
        """Count a rejected connection or frame, which never became a request."""
        self._now().refused[code] += 1

    def batch(self, priority: Priority, rows: int, tokens: int) -> None:
        """Count a batch that has been computed."""
        self._now().batches[priority].record(rows, tokens)

    def since_start(self) -> Period:
        """Return the counts since the start."""
        return _sum((self._before, self._now()))

    def recent(self) -> Period:
        """Return the counts of the last four to five minutes."""
        self._now()
        return _sum(period for _, period in self._recent)

    def to_map(self) -> dict[str, Any]:
        """Return the `statistics` section of `status`."""
        return {
            "recent_seconds": _RECENT_PERIODS * _PERIOD_SECONDS,
            "recent": self.recent().to_map(),
            "since_start": self.since_start().to_map(),
        }

    def _now(self) -> Period:
        now = self._clock()
        if now >= self._until:
            self._turn(now)
        return self._recent[-1][1]

    def _turn(self, now: float) -> None:
        if self._recent:
            self._before.add(self._recent[-1][1])
        begun = now - now % _PERIOD_SECONDS
        self._until = begun + _PERIOD_SECONDS
        self._recent.append((begun, Period()))
        while self._recent[0][0] <= begun - _RECENT_PERIODS * _PERIOD_SECONDS:
            self._recent.popleft()


def _sum(periods: Iterable[Period]) -> Period:
    total = Period()
    for period in periods:
        total.add(period)
    return total


def _nested(items: Iterable[tuple[tuple[str, str], Any]]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (outer, inner), value in items:
        nested.setdefault(outer, {})[inner] = value
    return nested
