"""Shared by commands that query a daemon: the connection, and the rendering of a page."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client_lib import Client, ConnectionLost, SidecarError
from sidecar.cli.terminal import shown
from sidecar.operate.status import Section

ANSWER_SECONDS = 10.0
"""Timeout for an answer of a daemon that listens."""


def add_socket(parser: Any) -> None:
    """Add the flag for the daemon's socket."""
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the daemon's socket ($SIDECAR_SOCKET)"
    )


@contextmanager
def asking(socket: Path | None) -> Iterator[Client]:
    """Open a client that does not retry. Raises `ConnectionLost` for any error of the daemon."""
    try:
        with Client(socket, timeout=ANSWER_SECONDS, retries=False) as client:
            yield client
    except SidecarError as error:
        raise ConnectionLost(str(error)) from error


def render(page: Iterable[Section]) -> RenderableType:
    """Return the sections, one below another."""
    return Group(*(piece for section in page for piece in _render(section)))


def _render(section: Section) -> Iterator[RenderableType]:
    yield Text(section.title, style="bold cyan")
    table = Table(
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=bool(section.columns),
    )
    for heading in section.columns or ("", ""):
        table.add_column(heading, no_wrap=bool(section.columns))
    for row in section.rows:
        # Escape first, so that column widths are right.
        table.add_row(*(Text(shown(cell)) for cell in row))
    yield table
    yield Text()
