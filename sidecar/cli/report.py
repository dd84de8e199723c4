"""`sidecar report`: write the events of a period as one page with plots."""

import argparse
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from client_lib.distribution import DAEMON, install_command
from sidecar.cli import asking, pages
from sidecar.cli.exits import EX_CONFIG, EX_NOINPUT, EX_OK
from sidecar.cli.terminal import complain, say
from sidecar.operate.history import History
from sidecar.operate.records import STDIN, Reading, SourceError


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "report",
        help="write a page with plots of the events",
        description="Write one self-contained HTML page: latency, throughput, batches, memory and "
        "errors over time, and what was slow or failed.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("sidecar-report.html"), metavar="FILE",
        help="the page (default: sidecar-report.html)",
    )  # fmt: skip
    asking.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page; return 66 if there is no source, 78 without the extra `plots`."""
    asking.say_what_is_doubtful(arguments)
    try:
        # Its dependencies are an extra.
        report = import_module("sidecar.operate.report")
        history, reading = _read(arguments)
        page = report.render(history, _sources(arguments), datetime.now(UTC))
    except ModuleNotFoundError as error:
        complain(f"a report needs {error.name}: {install_command(DAEMON, 'plots')}")
        return EX_CONFIG
    except SourceError as error:
        complain(error)
        return EX_NOINPUT
    pages.write(arguments.output, page)
    asking.say_what_was_skipped(reading)
    say(f"{arguments.output}: {report.told(history.records)}")
    return EX_OK


def _read(arguments: argparse.Namespace) -> tuple[History, Reading]:
    history, reading = History(), Reading()
    with asking.progress() as opener:
        for record in asking.records_of(arguments, reading, opener):
            history.add(record)
    return history, reading


def _sources(arguments: argparse.Namespace) -> str:
    if not arguments.files:
        return "the journal"
    names = ["standard input" if path == STDIN else path.name for path in arguments.files]
    return ", ".join(names)
