"""PURE: records → everything that a report shows of a daemon, in bounded memory."""

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from math import inf
from typing import Any

from sidecar.operate.aggregate import Aggregation, weight_of
from sidecar.operate.distribution import Distribution
from sidecar.operate.query import number, text
from sidecar.operate.records import Record
from sidecar.operate.timeline import Amounts, Timeline, add

_SLOWEST = 10
_MOST_STARTS = 100
_FAILURES = {
    "request.failed",
    "peer.failed",
    "peer.rejected",
    "peer.stalled",
    "loop.failed",
    "worker.crashed",
    "worker.hung",
    "server.reload_failed",
}
_QUANTIZATION = {"quantization.selected", "quantization.applied", "quantization.fell_back"}


class History:
    """Collects records, in any order.

    `starts` are times in seconds since the epoch; `batch_rows` counts batches by their rows;
    `quantization` is the last event of each kind about each model, by model and event.
    """

    def __init__(self) -> None:
        self.records = 0
        self.first, self.last = inf, -inf
        self.timeline = Timeline()
        self.total_ms = Distribution()
        self.answered: Amounts = {}
        self.failed = 0.0
        self.batch_rows: Counter[int] = Counter()
        self.starts: deque[float] = deque(maxlen=_MOST_STARTS)
        self.pss_bytes: float | None = None
        self.quantization: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.failures = Aggregation(("event", "code", "reason"))
        self.askers = Aggregation(("peer_uid", "peer_pid"), ("tokens", "total_ms"))
        self._slowest: list[tuple[float, int, Mapping[str, Any]]] = []

    def add(self, record: Record) -> None:
        """Add a record; an event that the report does not show only extends its time span."""
        self.records += 1
        self.first, self.last = min(self.first, record.at), max(self.last, record.at)
        name = record.fields["event"]
        if name == "request.completed":
            self._add_request(record)
        elif name == "batch.completed":
            self._add_batch(record.fields)
        elif name in _FAILURES:
            self._add_failure(record)
        elif name in _QUANTIZATION:
            self.quantization[text(record.fields.get("model", "")), name] = record.fields
        elif name == "server.listening":
            self.starts.append(record.at)
        if (pss_bytes := number(record.fields.get("pss_bytes"))) is not None:
            self.timeline.at(record.at).pss_bytes.add(pss_bytes)
            self.pss_bytes = pss_bytes

    def slowest_batches(self) -> list[Mapping[str, Any]]:
        """Return the batches that took longest to compute, slowest first."""
        return [fields for _, _, fields in sorted(self._slowest, reverse=True)]

    def _add_request(self, record: Record) -> None:
        fields, weight = record.fields, weight_of(record.fields)
        step = self.timeline.at(record.at)
        if (total_ms := number(fields.get("total_ms"))) is not None:
            step.total_ms.add(total_ms, weight)
            self.total_ms.add(total_ms, weight)
        if (queue_ms := number(fields.get("queue_ms"))) is not None:
            step.queue_ms.add(queue_ms, weight)
        amounts = {"requests": 1.0, "rows": fields.get("rows"), "tokens": fields.get("tokens")}
        for what, amount in amounts.items():
            add(step.answered, what, weight * (number(amount) or 0))
            add(self.answered, what, weight * (number(amount) or 0))
        self.askers.add(record)

    def _add_batch(self, fields: Mapping[str, Any]) -> None:
        rows, compute_ms = number(fields.get("rows")), number(fields.get("compute_ms"))
        if rows is not None:
            self.batch_rows[int(rows)] += round(weight_of(fields))
        if compute_ms is not None:
            push = heapq.heappush if len(self._slowest) < _SLOWEST else heapq.heappushpop
            push(self._slowest, (compute_ms, -self.records, fields))

    def _add_failure(self, record: Record) -> None:
        fields = record.fields
        weight = weight_of(fields)
        self.failed += weight
        kind = text(fields["code"]) if fields.get("code") else fields["event"]
        add(self.timeline.at(record.at).failed, kind, weight)
        self.failures.add(record)
