"""A connection's byte streams, buffering little more than its reader asks for.

asyncio's own streams buffer up to half a megabyte per connection.
"""

import asyncio
from contextlib import suppress
from typing import cast

UNSENT_BYTES = 32 * 1024
"""How much a peer may leave unread before writers have to wait."""


class Channel(asyncio.BufferedProtocol):
    """One accepted connection, for one reading task, and one writing task at a time.

    All channels of a loop read into the same `inbox`; what arrives is copied out of it before
    another channel reads. Between reads, at most twice what the last one asked for is buffered.
    """

    def __init__(self, inbox: bytearray) -> None:
        self._inbox = memoryview(inbox)
        self._arrived = bytearray()
        self._most = 1
        self._paused = False
        self._over = False  # nothing more will arrive
        self._reader: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()

    async def read(self, most: int) -> bytes:
        """Wait for data and return up to `most` bytes of it; b"" at the end of the stream."""
        assert 0 < most <= len(self._inbox)
        self._most = most
        if not self._arrived and not self._over:
            self._resume()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._arrived[:most])
        del self._arrived[:most]
        return data

    @property
    def kept(self) -> int:
        """How many bytes have arrived and not been read yet."""
        return len(self._arrived)

    @property
    def unsent(self) -> int:
        """How many written bytes the kernel has not accepted yet."""
        return self._transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closed or closing, so that further writes are lost."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send `data` now, or as the peer reads; see `drain`."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the peer has read enough to write more, or is gone."""
        await self._writable.wait()

    async def close(self, seconds: float) -> None:
        """Close the connection, allowing `seconds` to send what has been written."""
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
        finally:
            if not self._closed.is_set():  # once it is, asyncio's transport cannot be aborted
                self._transport.abort()

    def abort(self) -> None:
        """Close the connection now, dropping unsent data."""
        self._transport.abort()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the transport passes it
        return self._inbox[: self._most]

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived += self._inbox[:nbytes]
        if not self._wake():
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._over = True
        self._wake()
        return True  # what is still unanswered can be answered

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        self._over = True
        self._wake()
        self._writable.set()
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> bool:
        """Wake the reader; return False if there is none."""
        if self._reader is None or self._reader.done():
            return False
        self._reader.set_result(None)
        return True

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
