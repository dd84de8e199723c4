"""Sources → records: reads events from systemd's journal through `journalctl`.

An entry that the daemon wrote natively has the event's fields as its own, in upper case and as
text, and its name in EVENT. One written through standard output has the event's line of JSON in
MESSAGE. Other entries under the daemon's name are skipped.

Anyone who can write to the journal can claim to be sidecar. So entries are trusted by what the
journal itself records about their writer: it must be one of our units, or a process of root or of
the asking user.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor
from typing import Any

from sidecar.events import CATALOGUE
from sidecar.operate.records import Reading, Record, SourceError, lines_of, parse, seconds

_IDENTIFIER = "sidecar"
_UNIT = re.compile(r"sidecar(@[^/]+|-gateway|-metrics)?\.service")
_ROOT = "0"
_GLOB = frozenset("*?[")
# The journal's own fields, as are all that begin with an underscore.
_NOT_OURS = ("SYSLOG_", "CODE_", "_", "PRIORITY", "MESSAGE_ID", "TID")
_HEX = {"TRACE_ID", "PARENT_ID"}  # may happen to consist of decimal digits only
_LEVELS = ("critical", "critical", "critical", "error", "warning", "info", "info", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to ask the journal for; a `Query` filters the rest.

    `unit` is read and trusted instead of Sidecar's own units and the user `uid`; `since` and
    `until` are seconds since the epoch; `events` are names or globs, none meaning any.
    """

    unit: str | None = None
    uid: int = field(default_factory=os.geteuid)
    since: float | None = None
    until: float | None = None
    events: Sequence[str] = ()
    follow: bool = False


def from_journal(asked: Asked, reading: Reading) -> Iterator[Record]:
    """Yield events in the journal's order. Raises `SourceError` if there is no journal."""
    path = shutil.which("journalctl")
    # Without a journal, no file has a header to show.
    if path is None or not _output_of(path, "--header"):
        raise SourceError("there is no journal on this host: name files of events with --file")
    with lines_of([path, *arguments(asked)]) as lines:
        for line in lines:
            if (record := record_of(line, reading, asked)) is not None:
                reading.records += 1
                yield record


def arguments(asked: Asked) -> list[str]:
    """Return `journalctl`'s arguments; they exclude only what a `Query` would."""
    words = ["--output=json", "--all", "--no-pager", "--quiet"]
    words += [f"--unit={asked.unit}"] if asked.unit else [f"--identifier={_IDENTIFIER}"]
    words += [f"--since=@{floor(asked.since)}"] if asked.since is not None else []
    words += [f"--until=@{ceil(asked.until)}"] if asked.until is not None else []
    words += ["--follow", "--lines=all"] if asked.follow else []
    if asked.events and not any(_GLOB & set(name) for name in asked.events):
        # Lines of JSON cannot be filtered by event before they are parsed.
        words += [f"EVENT={name}" for name in asked.events] + ["+", "_TRANSPORT=stdout"]
    return words


def _output_of(*command: str) -> bytes:
    return subprocess.run(  # noqa: S603 - no shell, our own words
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    ).stdout


def record_of(line: bytes, reading: Reading, asked: Asked) -> Record | None:
    """Return the event in an entry, a line of JSON; None if it has none or is not trusted."""
    try:
        entry = json.loads(line)
        if not _is_believed(entry, asked):
            return None
        if "EVENT" in entry:
            return _native(entry)
        message = _text(entry.get("MESSAGE"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
        reading.note_broken("the journal")
        return None
    record = parse(message)
    if record is None and message.startswith("{"):
        reading.note_broken("the journal")
    return record


def _is_believed(entry: Mapping[str, Any], asked: Asked) -> bool:
    """Whether, by the journal's own record, a daemon, root or the asking user wrote `entry`.

    Entries of a named unit were selected by journalctl already.
    """
    if asked.unit is not None:
        return True
    unit, uid = _text(entry.get("_SYSTEMD_UNIT")), _text(entry.get("_UID"))
    return _UNIT.fullmatch(unit) is not None or uid in {_ROOT, str(asked.uid)}


def _native(entry: Mapping[str, Any]) -> Record:
    taken = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
    ours = {
        name.lower(): _value(name, _text(value))
        for name, value in entry.items()
        if not name.startswith(_NOT_OURS)
    }
    # Defaults for fields that other writers leave to the journal.
    head = {
        "ts": datetime.fromtimestamp(taken, UTC).isoformat(timespec="microseconds"),
        "level": _LEVELS[int(entry.get("PRIORITY", 6))],
    }
    names = ("ts", "level", "event", *ours)
    fields = {name: (head | ours)[name] for name in names}
    about = CATALOGUE.get(fields["event"])
    if about is not None and "message" not in about.fields:
        fields.pop("message", None)  # every entry has a human-readable one
    return Record(seconds(fields["ts"]), fields)


def _text(value: Any) -> str:
    """Return a journal field as text: the last of several values; bytes come as numbers."""
    match value:
        case [int(), *_]:
            return bytes(value).decode(errors="replace")
        case [*_, last]:
            return _text(last)
        case str():
            return value
    return ""


def _value(name: str, text: str) -> Any:
    """Parse a field's text: as a number, a list, true, false or null, or else keep the text."""
    if name in _HEX:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
