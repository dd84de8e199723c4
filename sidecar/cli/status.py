"""`sidecar status`: print a daemon's status, as a page or as JSON."""

import argparse
import json
from typing import Any

from sidecar.cli.console import Console
from sidecar.cli.exits import EX_OK, EX_UNWELL
from sidecar.cli.screen import add_socket, asking, render
from sidecar.cli.terminal import say
from sidecar.operate.status import is_well, page


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("status", help="show the status of a daemon")
    add_socket(parser)
    parser.add_argument("--json", action="store_true", help="print the whole status as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the status; return 0 if the daemon is well, 1 if it is unhealthy or draining."""
    with asking(arguments.socket) as client:
        status = client.status()
    if arguments.json:
        say(json.dumps(status, indent=2))
    else:
        Console().print(render(page(status)))
    return EX_OK if is_well(status) else EX_UNWELL
