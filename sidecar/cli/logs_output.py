"""The output of `sidecar logs`: lines, a table or JSON.

Events may contain text written by a peer, in values and in field names. None of it reaches a
terminal as a control character.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from rich.table import Table
from rich.text import Text

from sidecar.cli.console import Console
from sidecar.cli.terminal import say, shown
from sidecar.operate.aggregate import Group
from sidecar.operate.distribution import Summary
from sidecar.operate.query import text
from sidecar.operate.records import Record

_LARGE = 100.0
_WIDE = 160
_HEAD = ("ts", "level", "event")
_STYLES = {
    "debug": "green", "info": "green", "warning": "yellow", "error": "red", "critical": "bold red",
}  # fmt: skip
_FIGURES = tuple(f.name for f in fields(Summary) if f.name not in {"count", "estimated"})


def print_records(records: Iterable[Record], arguments: argparse.Namespace) -> None:
    """Print each record on a line as it arrives, in colour on a terminal."""
    console = Console(soft_wrap=True, highlight=False)
    for record in records:
        chosen = _chosen(record.fields, arguments.fields)
        if arguments.json:
            say(_json(chosen), flush=arguments.follow)
        elif console.is_terminal:
            console.print(Text.assemble(*_parts(chosen)))
        else:
            say("".join(part for part, _ in _parts(chosen)), flush=arguments.follow)


def print_groups(groups: list[Group], arguments: argparse.Namespace) -> None:
    """Print the groups as a table or as JSON lines."""
    if arguments.json:
        for group in groups:
            say(_json(_as_map(group, arguments.by)))
    else:
        # Without a terminal there is no width to fit into.
        Console(width=None if sys.stdout.isatty() else _WIDE).print(_table(groups, arguments))


def _chosen(record: Mapping[str, Any], names: list[str]) -> Mapping[str, Any]:
    """Return `ts`, `level`, `event` and the fields in `names`; all fields if `names` is empty."""
    if not names:
        return record
    return {name: record[name] for name in (*_HEAD, *names) if name in record}


_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _parts(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the parts of an event's line, each with its style."""
    ts, level, event = (shown(text(fields.get(name, ""))) for name in _HEAD)
    yield f"{ts} ", "dim"
    yield f"[{level:<8}] ", _STYLES.get(level, "")
    yield event, "bold"
    for name, value in fields.items():
        if name not in _HEAD:
            yield f" {shown(name)}=", "cyan"
            yield repr(value), "magenta"  # repr escapes unprintable characters


def _as_map(group: Group, by: list[str]) -> dict[str, Any]:
    figures = {name: asdict(summary) for name, summary in group.summaries.items()}
    key = dict(zip(by, group.key, strict=True))
    return {**key, "count": round(group.count), "stats": figures}


def _table(groups: list[Group], arguments: argparse.Namespace) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in arguments.by:
        table.add_column(name, overflow="fold", min_width=len(name))
    table.add_column("count", justify="right", no_wrap=True)
    if arguments.stats:
        table.add_column("of", no_wrap=True)
    for name in _FIGURES if arguments.stats else ():
        table.add_column(name, justify="right", no_wrap=True)
    for group in groups:
        for row in _rows(group, arguments.stats):
            table.add_row(*row)
    if any(s.estimated for group in groups for s in group.summaries.values()):
        table.caption = "percentiles of more than 10,000 numbers are estimates, within 1 %"
    return table


def _rows(group: Group, stats: list[str]) -> Iterator[list[Text]]:
    head = ["" if part is None else shown(text(part)) for part in group.key]
    head.append(_figure(group.count))
    if not stats:
        yield [Text(part) for part in head]
    for name in stats:
        summary = group.summaries.get(name)
        figures = [_figure(getattr(summary, f)) if summary else "" for f in _FIGURES]
        yield [Text(part) for part in (*head, name, *figures)]
        head = [""] * len(head)


def _figure(value: float) -> str:
    """Format `value` with as many decimals as are significant."""
    digits = 0 if value.is_integer() else 1 if abs(value) >= _LARGE else 3
    return f"{value:,.{digits}f}"
