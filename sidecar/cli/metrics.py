"""`sidecar metrics`: print a daemon's metrics in a Prometheus format, or write them to a file."""

import argparse
from pathlib import Path
from typing import Any, get_args

from client_lib.wire.messages import MetricsFormat
from sidecar.cli.exits import EX_CANTCREAT, EX_OK
from sidecar.cli.screen import add_socket, asking
from sidecar.cli.terminal import complain, say
from sidecar.files import replace_file

# A collector may run as another user.
_READABLE = 0o644


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "metrics", help="print a daemon's metrics, or write them to a file"
    )
    add_socket(parser)
    parser.add_argument(
        "--format",
        choices=get_args(MetricsFormat),
        default="openmetrics",
        help="node exporter's textfile collector needs prometheus (default: openmetrics)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="replace FILE instead of printing"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or write the metrics; return 73 if the file cannot be written."""
    with asking(arguments.socket) as client:
        text = client.metrics(arguments.format).text
    if arguments.output is None:
        say(text.removesuffix("\n"))
        return EX_OK
    try:
        replace_file(arguments.output, text, _READABLE)
    except OSError as error:
        complain(f"{arguments.output}: {error.strerror}")
        return EX_CANTCREAT
    return EX_OK
