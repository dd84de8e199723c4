"""Structured events: named, with fields, and never containing a user's text.

On standard output, one JSON object per line: `ts` (ISO 8601, UTC), `level`, `event`, then the
event's fields. In systemd's journal, the same as fields of an entry. Fields without a value are
omitted. A leaf package: every other one may import it.
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
    """Send the events chosen by `selection` to `target`.

    A thread writes them; pending ones are flushed at exit.
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
    """Replace the selection, if `configure` has been called."""
    # In place: cached loggers keep a reference to this list.
    processors = structlog.get_config()["processors"]
    processors[:] = [selection if isinstance(p, Selection) else p for p in processors]


def flush() -> None:
    """Wait up to a second for pending events to be written. Call it before ending the process."""
    outlet = structlog.get_config()["logger_factory"]()
    if isinstance(outlet, _Outlet):
        outlet.flush()


def trace(error: BaseException) -> str:
    """Return `error`'s traceback, including its causes."""
    return "".join(traceback.format_exception(error))


class _Outlet:
    """The logger that structlog wraps: one method per level, each queueing the record."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.debug = self.info = self.warning = self.error = self.critical = writer.put

    def flush(self) -> None:
        self._writer.flush(_FLUSH_SECONDS)


def _stamp(
    _: object, level: str, event: MutableMapping[str, Any]
) -> tuple[tuple[dict[str, Any]], dict[str, Any]]:
    """Return the logger's arguments: the record, with `ts`, `level` and `event` first."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    head = {"ts": now, "level": level, "event": event.pop("event")}
    fields = {name: value for name, value in event.items() if value is not None}
    return (head | fields,), {}


def _log_lost(count: int) -> None:
    log.warning("events.lost", count=count)
