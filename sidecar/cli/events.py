"""`sidecar events`: print the event catalogue as Markdown, which is docs/events.md."""

import argparse
from collections.abc import Iterator
from typing import Any

from sidecar.cli.exits import EX_OK
from sidecar.cli.terminal import say
from sidecar.events import CATALOGUE, Event

_HEAD = """\
# Events

Every event that the daemon and the gateway log; `sidecar events` prints this page. On standard
output an event is one line of JSON. Under systemd it is an entry of the journal, with field names
in upper case (`EVENT`, `TOTAL_MS`, …).

Every event has `ts` (ISO 8601, UTC), `level` and `event`, its name. Fields without a value are
omitted. Names are consistent: `seconds` and `*_seconds` are in seconds, `*_ms` in milliseconds,
`bytes` and `*_bytes` in bytes. `peer_pid`, `peer_uid` and `peer_gid` identify the peer, as reported
by the kernel; `peer_pid` and the `request_id` of a client's exception identify a request. No event
contains the text of a request."""


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("events", help="print the event catalogue as Markdown")
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
