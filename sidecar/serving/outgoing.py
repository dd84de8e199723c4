"""What goes out to one peer: a frame at a time, for as long as the peer takes it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

# How long the last bytes to a peer may take when the connection ends.
_LINGER_SECONDS = 1.0


class Outgoing:
    """The writing end of a connection.

    A peer that does not take a frame within `stall_seconds` is told of to `stalled`, and loses
    its connection.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, stall_seconds: float, stalled: Callable[[str], None]
    ) -> None:
        self._writer = writer
        self._stall_seconds = stall_seconds
        self._stalled = stalled
        self._sending = asyncio.Lock()

    async def send(self, frame: bytes) -> None:
        """Write a frame, and return once the peer has taken it, or is gone."""
        # One frame at a time is the transport's: a peer that does not read has no more there.
        async with self._sending:
            self.write(frame)
            if self._writer.transport.get_write_buffer_size():
                await self._sent()

    def write(self, frame: bytes) -> None:
        """Write a short frame that nobody waits for."""
        if not self._writer.is_closing():
            self._writer.write(frame)

    async def hang_up(self) -> None:
        """Close the connection; what was written has a moment to go out."""
        self._writer.close()
        try:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()

    async def _sent(self) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._writer.drain()
        except ConnectionError:
            pass  # the reader learns of it too, and ends the session
        except TimeoutError:
            self._stalled("a reply to be taken")
            self._writer.transport.abort()
