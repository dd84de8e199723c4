"""Write frames to one peer, one at a time, while the peer keeps reading."""

import asyncio
from collections.abc import Callable

from sidecar.serving.transport.channel import Channel

# How long sending the last bytes may take when a connection is closed.
_LINGER_SECONDS = 1.0


class FrameWriter:
    """The writing end of a connection.

    If a peer does not read a frame within `stall_seconds`, `stalled` is called with what was
    awaited, and the connection is aborted.
    """

    def __init__(
        self, channel: Channel, stall_seconds: float, stalled: Callable[[str], None]
    ) -> None:
        self._channel = channel
        self._stall_seconds = stall_seconds
        self._stalled = stalled
        self._sending = asyncio.Lock()

    async def send(self, frame: bytes) -> None:
        """Write a frame, and return once the peer has read it or is gone."""
        # The transport buffers one frame at a time, however slowly the peer reads.
        async with self._sending:
            self.write(frame)
            if self._channel.unsent:
                await self._sent()

    def write(self, frame: bytes) -> None:
        """Write a short frame without waiting for the peer to read it."""
        if not self._channel.is_closing:
            self._channel.write(frame)

    async def hang_up(self) -> None:
        """Close the connection, allowing a moment to send what has been written."""
        await self._channel.close(_LINGER_SECONDS)

    async def _sent(self) -> None:
        try:
            async with asyncio.timeout(self._stall_seconds):
                await self._channel.drain()
        except TimeoutError:
            self._stalled("a reply to be read")
            self._channel.abort()
