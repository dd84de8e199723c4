"""Log lines written off the reply path.

Writing a line takes longer than handing a row over. To keep a reply from waiting for the line
about its own request, lines are collected and written in one go a moment later, most likely while
the threads compute and the event loop is idle.
"""

import asyncio
from collections.abc import Callable

_DELAY_SECONDS = 0.01


class DeferredLog:
    """Lines to write soon, in order. Use it on a single event loop."""

    def __init__(self) -> None:
        self._pending: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()

    def add(self, write: Callable[[], None]) -> None:
        """Schedule `write`, which writes a line."""
        if not self._pending:
            self._loop.call_later(_DELAY_SECONDS, self.flush)
        self._pending.append(write)

    def flush(self) -> None:
        """Write all pending lines now. Call it before stopping the loop.

        A line that fails does not hold up the others.
        """
        pending, self._pending = self._pending, []
        for write in pending:
            try:
                write()
            except Exception as error:  # noqa: BLE001 - not swallowed: the loop reports it
                context = {"message": "a log line could not be written", "exception": error}
                self._loop.call_exception_handler(context)
