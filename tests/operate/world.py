"""Builders of records and JSON lines for the tests."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sidecar.operate.records import Record


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def records(**fields: list[Any]) -> Iterator[Record]:
    """Yield one record per position in the lists, one second apart."""
    for at, values in enumerate(zip(*fields.values(), strict=True)):
        head = {"ts": datetime.fromtimestamp(at, UTC).isoformat(), "event": "request.completed"}
        yield Record(float(at), {**head, **dict(zip(fields, values, strict=True))})
