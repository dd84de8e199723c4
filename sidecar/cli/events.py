"""`sidecar events`: the catalogue of events, as Markdown; docs/events.md is its output."""

import argparse
from collections.abc import Iterator
from typing import Any

from sidecar.cli.exits import EX_OK
from sidecar.cli.terminal import say
from sidecar.events import CATALOGUE, Event

_HEAD = """\
# Events

What a daemon says, event by event; `sidecar events` prints this page. On standard output an
event is one line of JSON, under systemd an entry of the journal with each field by its name in
capitals (`EVENT`, `TOTAL_MS`, …).

Every event has `ts` (ISO 8601, UTC), `level` and `event`, its name. A field that has no value is
left out. Names are the same everywhere: `seconds` and what ends in `_seconds` are seconds, what
ends in `_ms` milliseconds, `bytes` and what ends in `_bytes` bytes. `peer_pid`, `peer_uid` and
`peer_gid` are whom the kernel says the peer was; `peer_pid` and `request_id` are what an error of
the client names. No event holds a text that was asked for."""


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("events", help="print which events there are, as Markdown")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the catalogue."""
    say("\n\n".join(_page()))
    return EX_OK


def _page() -> Iterator[str]:
    yield _HEAD
    for name, event in CATALOGUE.items():
        yield f"## `{name}`"
        yield f"{event.when[:1].upper()}{event.when[1:]}. Level: {' or '.join(event.levels)}."
        yield _table(event)


def _table(event: Event) -> str:
    rows = (f"| `{name}` | {meaning} |" for name, meaning in event.fields.items())
    return "\n".join(("| field | meaning |", "| --- | --- |", *rows))
