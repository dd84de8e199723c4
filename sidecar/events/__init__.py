"""What the daemon says: structured events, by name and fields, never with a text in them.

On standard output one JSON map a line: `ts` (ISO 8601, UTC), `level`, `event`, then the event's
fields; in systemd's journal the same as fields of an entry. A field without a value is left out.
A leaf: any room may import it, it imports none.
"""

import atexit
import logging
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog

from sidecar.events.catalogue import CATALOGUE, Event
from sidecar.events.selection import Selection
from sidecar.events.writer import Lines, Target, Writer

__all__ = ["CATALOGUE", "Event", "Selection", "configure", "flush", "log", "select", "trace"]

_FLUSH_SECONDS = 1.0
_STDOUT = Lines(1)
_BY_DEFAULT = Selection()

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def configure(target: Target = _STDOUT, selection: Selection = _BY_DEFAULT) -> None:
    """Send the events of `selection` to `target`.

    They are written by a thread, the last of them when the process ends.
    """
    outlet = _Outlet(Writer(target, _log_lost))
    structlog.configure(
        processors=[selection, _stamp],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: outlet,
        cache_logger_on_first_use=True,
    )
    atexit.register(outlet.flush)


def select(selection: Selection) -> None:
    """Write the events of `selection` from now on, if `configure` has been called."""
    # In place: loggers keep the list that they were made with.
    processors = structlog.get_config()["processors"]
    processors[:] = [selection if isinstance(p, Selection) else p for p in processors]


def flush() -> None:
    """Wait, a second at most, until what was said is written: for whoever ends the process."""
    outlet = structlog.get_config()["logger_factory"]()
    if isinstance(outlet, _Outlet):
        outlet.flush()


def trace(error: BaseException) -> str:
    """Return `error`'s traceback, its causes included."""
    return "".join(traceback.format_exception(error))


class _Outlet:
    """What structlog takes for a logger: a method for each level, and all put the record."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.debug = self.info = self.warning = self.error = self.critical = writer.put

    def flush(self) -> None:
        self._writer.flush(_FLUSH_SECONDS)


def _stamp(
    _: object, level: str, event: MutableMapping[str, Any]
) -> tuple[tuple[dict[str, Any]], dict[str, Any]]:
    """Return the logger's arguments: the record, its fields in their order."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    head = {"ts": now, "level": level, "event": event.pop("event")}
    fields = {name: value for name, value in event.items() if value is not None}
    return (head | fields,), {}


def _log_lost(count: int) -> None:
    log.warning("events.lost", count=count)
