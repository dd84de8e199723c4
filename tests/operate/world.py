"""Records and lines of a test's own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sidecar.operate.records import Record


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def records(**fields: list[Any]) -> Iterator[Record]:
    """One record for each place in the lists, a second apart."""
    for at, values in enumerate(zip(*fields.values(), strict=True)):
        head = {"ts": datetime.fromtimestamp(at, UTC).isoformat(), "event": "request.completed"}
        yield Record(float(at), {**head, **dict(zip(fields, values, strict=True))})
