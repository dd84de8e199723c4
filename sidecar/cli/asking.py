"""Shared by `logs` and `report`: flags that select events and their source."""

import argparse
import pwd
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from sidecar import events
from sidecar.cli.console import Console
from sidecar.cli.terminal import complain
from sidecar.operate.journal import Asked, from_journal
from sidecar.operate.query import (
    LEVELS,
    Condition,
    Query,
    QueryError,
    doubt,
    parse_condition,
    parse_time,
)
from sidecar.operate.records import Opener, Reading, Record, from_files

_FIELDS = frozenset({"ts", "level", "event"}).union(
    *(event.fields for event in events.CATALOGUE.values())
)


def flag_type(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `parse` as an argparse type: a `QueryError` becomes a usage error."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except QueryError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `query_of` and `records_of` read."""
    source = parser.add_argument_group("source of events (default: the journal)")
    source.add_argument(
        "--file", dest="files", metavar="PATH", type=Path, nargs="+", default=[], action="extend",
        help="JSON lines files, optionally gzipped, in any order; - is standard input",
    )  # fmt: skip
    source.add_argument("--unit", help="only the journal entries of this unit")
    which = parser.add_argument_group("filters")
    which.add_argument(
        "--event", dest="events", metavar="NAME", nargs="+", default=[],
        action="extend", help="by name, or by a pattern such as 'request.*'",
    )  # fmt: skip
    which.add_argument(
        "--where", dest="conditions", metavar="CONDITION", type=flag_type(parse_condition),
        nargs="+", default=[], action="extend",
        help="FIELD OP VALUE, where OP is = != > >= < <= or ~ (regular expression)",
    )  # fmt: skip
    which.add_argument(
        "--since", metavar="TIME", type=_time, help="2h or 1d12h ago, a date or time, today"
    )
    which.add_argument("--until", metavar="TIME", type=_time, help="same formats as --since")
    which.add_argument("--peer", type=_peer, help="requests of a process (PID) or user (uid:NAME)")
    which.add_argument("--model", type=lambda name: Condition("model", "=", name))
    which.add_argument("--level", choices=LEVELS, help="this level and above")


def say_what_is_doubtful(arguments: argparse.Namespace, fields: Iterable[str] = ()) -> None:
    """Warn on stderr about event and field names, in the flags and `fields`, that do not exist."""
    named = [*(condition.field for condition in arguments.conditions), *fields]
    for doubts in (
        doubt("event", arguments.events, events.CATALOGUE),
        doubt("field", named, _FIELDS),
    ):
        for sentence in doubts:
            complain(sentence)


def query_of(arguments: argparse.Namespace) -> Query:
    """Return the query that the flags describe."""
    named = [given for given in (arguments.peer, arguments.model) if given is not None]
    return Query(
        events=arguments.events,
        conditions=[*arguments.conditions, *named],
        since=arguments.since,
        until=arguments.until,
        level=arguments.level,
    )


def records_of(
    arguments: argparse.Namespace, reading: Reading, opener: Opener | None = None
) -> Iterator[Record]:
    """Yield the events that match the flags. Raises `SourceError`."""
    query = query_of(arguments)
    if arguments.files:
        found = from_files(arguments.files, reading, opener)
    else:
        found = from_journal(asked_of(query, arguments.unit), reading)
    return filter(query.predicate(), found)


def asked_of(query: Query, unit: str | None, *, follow: bool = False) -> Asked:
    """Return the part of `query` that the journal can answer."""
    return Asked(
        unit=unit, since=query.since, until=query.until, events=query.events, follow=follow
    )


@contextmanager
def progress() -> Iterator[Opener | None]:
    """Show a progress bar while files are read, if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield lambda stream, size: bars.wrap_file(stream, size, description="reading")


def say_what_was_skipped(reading: Reading) -> None:
    """Report on stderr lines that are not events, and sources that ended early."""
    if reading.broken:
        what = "line is not an event" if reading.broken == 1 else "lines are not events"
        complain(f"{reading.broken} {what}, the first at {reading.first_broken}")
    for cut_off in reading.cut_off:
        complain(f"reading ended early: {cut_off}")


@flag_type
def _time(text: str) -> float:
    """Parse a time; return seconds since the epoch."""
    return parse_time(text, datetime.now().astimezone()).timestamp()


@flag_type
def _peer(text: str) -> Condition:
    """Parse a peer; return the condition that the request came from that process or user."""
    kind, colon, name = text.rpartition(":")
    if not colon and name.isdecimal():
        return Condition("peer_pid", "=", name)
    if kind == "uid" and name:
        return Condition("peer_uid", "=", name if name.isdecimal() else str(_uid(name)))
    raise QueryError(f"{text!r} is not a peer: use a PID or uid:NAME")


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise QueryError(f"no user {name!r} on this host") from None
