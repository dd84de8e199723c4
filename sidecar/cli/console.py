"""rich's console, hardened against control characters and markup in the text it prints."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from sidecar.cli.terminal import shown


class Console(rich.console.Console):
    """A console that prints text literally, also inside tables, progress bars and spinners.

    Unprintable characters are escaped as in `terminal.shown`, and brackets are not markup.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Show a spinner with `status`, taken literally if it is a string."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of `renderable`, escaped except for rich's own control codes."""
        return map(_harmless, super().render(renderable, options))

    def on_broken_pipe(self) -> None:
        """Leave it to `sidecar.cli.main`, which rich would preempt with exit code 1."""
        self.quiet = True
        raise BrokenPipeError


def _harmless(segment: Segment) -> Segment:
    text, style, control = segment
    if control or text.isprintable():
        return segment
    return Segment("\n".join(map(shown, text.split("\n"))), style)
