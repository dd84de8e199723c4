"""The bytes of one connection, both ways, and no more of them in memory than was asked for.

asyncio's own streams take in up to half a megabyte unasked, of every connection.
"""

import asyncio
from contextlib import suppress
from typing import cast

UNSENT_BYTES = 32 * 1024
"""What a peer may leave untaken before whoever writes has to wait."""


class Channel(asyncio.BufferedProtocol):
    """One accepted connection. One task reads, one at a time writes.

    `inbox` is where all channels of a loop read into: what arrives is copied out of it before
    another one reads. Between two reads at most twice what the last one asked for is kept.
    """

    def __init__(self, inbox: bytearray) -> None:
        self._inbox = memoryview(inbox)
        self._arrived = bytearray()
        self._most = 1
        self._paused = False
        self._over = False  # nothing more arrives
        self._reader: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()

    async def read(self, most: int) -> bytes:
        """Return what has arrived, at most `most` bytes, once there is any; b"" after the end."""
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
        """How many bytes have arrived that nobody has read yet."""
        return len(self._arrived)

    @property
    def unsent(self) -> int:
        """How many bytes the peer has not taken yet, but for what the kernel keeps."""
        return self._transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Whether it has an end, or will soon: nothing that is written arrives any more."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send `data`, now or when the peer takes it; see `drain`."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Return once the peer has taken enough of what was written, or is gone."""
        await self._writable.wait()

    async def close(self, seconds: float) -> None:
        """Close it; what was written has so many seconds to go out."""
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closed.wait()
        finally:
            if not self._closed.is_set():  # asyncio's transport cannot be aborted once it is
                self._transport.abort()

    def abort(self) -> None:
        """Close it now."""
        self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the transport's wish
        return self._inbox[: self._most]

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived += self._inbox[:nbytes]
        if not self._wake():
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._over = True
        self._wake()
        return True  # what is still to be answered goes out

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - gone is gone
        self._over = True
        self._wake()
        self._writable.set()
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> bool:
        """Wake whoever reads; False where nobody does."""
        if self._reader is None or self._reader.done():
            return False
        self._reader.set_result(None)
        return True

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
