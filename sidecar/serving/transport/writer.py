"""What goes out to one peer: a frame at a time, for as long as the peer takes it."""

import asyncio
from collections.abc import Callable

from sidecar.serving.transport.channel import Channel

# How long the last bytes to a peer may take when the connection ends.
_LINGER_SECONDS = 1.0


class FrameWriter:
    """The writing end of a connection.

    A peer that does not take a frame within `stall_seconds` is told of to `stalled`, and loses
    its connection.
    """

    def __init__(
        self, channel: Channel, stall_seconds: float, stalled: Callable[[str], None]
    ) -> None:
        self._channel = channel
        self._stall_seconds = stall_seconds
        self._stalled = stalled
        self._sending = asyncio.Lock()

    async def send(self, frame: bytes) -> None:
        """Write a frame, and return once the peer has taken it, or is gone."""
        # One frame at a time is the transport's: a peer that does not read has no more there.
        async with self._sending:
            self.write(frame)
            if self._channel.unsent:
                await self._sent()

    def write(self, frame: bytes) -> None:
        """Write a short frame that nobody waits for."""
        if not self._channel.is_closing:
            self._channel.write(frame)

    async def hang_up(self) -> None:
        """Close the connection; what was written has a moment to go out."""
        await self._channel.close(_LINGER_SECONDS)

    async def _sent(self) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._channel.drain()
        except TimeoutError:
            self._stalled("a reply to be taken")
            self._channel.abort()
