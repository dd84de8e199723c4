"""Events that no reply waits for.

Writing a line takes longer than passing a row on. So that a caller does not wait for the line
about its own request, lines are collected and written together a moment later, most likely
while the threads compute and the loop has nothing else to do.
"""

import asyncio
from collections.abc import Callable

_DELAY_SECONDS = 0.01


class DeferredLog:
    """Lines to be written soon, in order; used on one loop alone."""

    def __init__(self) -> None:
        self._pending: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()

    def add(self, note: Callable[[], None]) -> None:
        """Call `note`, which writes a line, a moment later."""
        if not self._pending:
            self._loop.call_later(_DELAY_SECONDS, self.flush)
        self._pending.append(note)

    def flush(self) -> None:
        """Write what there is now; for whoever is about to stop the loop.

        A line that cannot be written holds up no other.
        """
        pending, self._pending = self._pending, []
        for note in pending:
            try:
                note()
            except Exception as error:  # noqa: BLE001 - not swallowed: the loop tells of it
                told = {"message": "a line could not be written", "exception": error}
                self._loop.call_exception_handler(told)
