"""What a command shows as a page: rich's console, whose text controls nothing."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from sidecar.cli.terminal import shown


class Console(rich.console.Console):
    """A console that shows text as text, whatever it is part of: a table, a bar, a status.

    What is not printable is written as `terminal.shown` does, and brackets are no markup.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Show what is being done, beside a spinner."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of `renderable`; rich's own control codes stay as they are."""
        return map(_harmless, super().render(renderable, options))


def _harmless(segment: Segment) -> Segment:
    text, style, control = segment
    if control or text.isprintable():
        return segment
    return Segment("\n".join(map(shown, text.split("\n"))), style)
