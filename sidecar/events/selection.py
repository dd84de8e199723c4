"""Which events are written."""

import logging
import random
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_SAMPLED = {"request.completed", "batch.completed"}
_RANDOM_DIGITS = 14  # of a trace id, the last: W3C Trace Context, level 2


@dataclass(frozen=True, slots=True)
class Selection:
    """Events of `level` ("debug", "info", "warning", "error") and above.

    Of the many that are alike, requests and batches that succeeded, the part `share` (0 to 1)
    and all that took `slow_ms` or longer. A trace is kept whole or not at all. Where not all are
    kept, `sample` says which part of its kind one stands for: 1 / `sample` is its weight in a sum.
    """

    level: str = "info"
    share: float = 1.0
    slow_ms: float = 1_000.0

    def __call__(
        self, _: object, level: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return `event`, or raise `structlog.DropEvent`: a processor of structlog's."""
        if _LEVELS[level] < _LEVELS[self.level]:
            raise structlog.DropEvent
        if self.share < 1 and event["event"] in _SAMPLED:
            event["sample"] = self._sample(event)
        return event

    def _sample(self, event: MutableMapping[str, Any]) -> float:
        if event.get("total_ms", event["compute_ms"]) >= self.slow_ms:
            return 1.0
        if _lot(event.get("trace_id")) >= self.share:
            raise structlog.DropEvent
        return self.share


def _lot(trace_id: str | None) -> float:
    """Return a number from 0 to below 1: at random, or the trace's own."""
    if trace_id is None:
        return random.random()  # noqa: S311 - chooses lines, hides nothing
    return int(trace_id[-_RANDOM_DIGITS:], 16) / (1 << 4 * _RANDOM_DIGITS)
