"""Filtering and sampling of events."""

import logging
import random
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_SAMPLED = {"request.completed", "batch.completed"}
_RANDOM_DIGITS = 14  # the last ones of a trace id: W3C Trace Context, level 2


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects events of `level` ("debug", "info", "warning", "error") and above.

    Successful requests and batches are sampled: a fraction `share` (0 to 1) of them is kept, and
    all that took `slow_ms` or longer. A trace is kept whole or not at all. When sampling, the
    field `sample` holds the probability of keeping the event: weight it by 1 / `sample` in sums.
    """

    level: str = "info"
    share: float = 1.0
    slow_ms: float = 1_000.0

    def __call__(
        self, _: object, level: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return `event`, or raise `structlog.DropEvent`. A structlog processor."""
        if _LEVELS[level] < _LEVELS[self.level]:
            raise structlog.DropEvent
        if self.share < 1 and event["event"] in _SAMPLED:
            event["sample"] = self._sample(event)
        return event

    def _sample(self, event: MutableMapping[str, Any]) -> float:
        if event.get("total_ms", event["compute_ms"]) >= self.slow_ms:
            return 1.0
        if _draw(event.get("trace_id")) >= self.share:
            raise structlog.DropEvent
        return self.share


def _draw(trace_id: str | None) -> float:
    """Return a number in [0, 1): derived from the trace id if there is one, otherwise random."""
    if trace_id is None:
        return random.random()  # noqa: S311 - for sampling, not for secrets
    return int(trace_id[-_RANDOM_DIGITS:], 16) / (1 << 4 * _RANDOM_DIGITS)
