"""`sidecar config`: print every setting, its value and its source."""

import argparse
import json
from typing import Any

from rich.table import Table

from sidecar.cli.console import Console
from sidecar.cli.exits import EX_OK
from sidecar.cli.settings import add_flags, settings_of
from sidecar.cli.terminal import say
from sidecar.config import Setting, flag_of


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("config", help="print every setting, its value and its source")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the settings that `serve` would use with the same flags and environment; return 0."""
    settings = settings_of(arguments)
    if arguments.json:
        say(json.dumps([_as_map(setting) for setting in settings], indent=2))
    else:
        Console().print(_table(settings))
    return EX_OK


def _as_map(setting: Setting) -> dict[str, Any]:
    return {
        "variable": setting.variable,
        "flag": flag_of(setting.field.name),
        "value": _plain(setting.value),
        "source": setting.source,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return ",".join(map(str, sorted(value)))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return value if isinstance(value, int | float | None) else str(value)


def _table(settings: list[Setting]) -> Table:
    table = Table("variable", "flag", "value", "source", "meaning", box=None, header_style="bold")
    for setting in settings:
        row = _as_map(setting)
        value = "" if row["value"] is None else str(row["value"])
        about = setting.field.metadata["about"]
        table.add_row(row["variable"], row["flag"], value, row["source"], about)
    return table
