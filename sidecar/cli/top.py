"""`sidecar top`: show a daemon's activity live."""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from client_lib import ConnectionLost
from sidecar.cli.console import Console
from sidecar.cli.exits import EX_OK
from sidecar.cli.screen import add_socket, asking, render
from sidecar.operate.status import Status, live_page, rates

_INTERVAL_SECONDS = 2.0


class Watch:
    """Watches the daemon at a socket, across restarts, and computes rates between refreshes."""

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket
        self._before: Status | None = None

    def look(self) -> RenderableType:
        """Return the current page, or a notice that no daemon answers."""
        try:
            # Connect each time: the daemon may have been replaced.
            with asking(self._socket) as client:
                status = client.status()
        except ConnectionLost as error:
            self._before = None
            return Text(f"waiting for the daemon: {error}", style="yellow")
        now = rates(self._before, status) if self._before is not None else None
        self._before = status
        return render(live_page(status, now))


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("top", help="watch a daemon live, until Ctrl-C")
    add_socket(parser)
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=_INTERVAL_SECONDS,
        metavar="SECONDS",
        help=f"refresh interval (default: {_INTERVAL_SECONDS:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the daemon until Ctrl-C, waiting for it while it is not running."""
    watch = Watch(arguments.socket)
    try:
        with Live(watch.look(), console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(arguments.interval)
                live.update(watch.look(), refresh=True)
    except KeyboardInterrupt:
        return EX_OK


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds
