"""A stream of bytes, cut to the bodies of its frames: a 4-byte big-endian length, then the body."""

import struct

import numpy as np

from client_lib.wire.errors import FrameTooLarge

_LENGTH = struct.Struct("!I")
HEADER_BYTES = _LENGTH.size
LONG_FRAME_BYTES = 64 * 1024
"""A frame with a longer body gets the memory for all of it at once, see `Frames.feed`."""


def framed(body: bytes) -> bytes:
    """Return `body` with its length before it."""
    return _LENGTH.pack(len(body)) + body


class Frames:
    """The frames that have begun and have not been taken.

    `max_bytes` bounds one frame's body and is checked on the length alone, before a byte of
    the body is waited for.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        # The body of a long frame, and how much of it has come. A buffer that grew with it would
        # be moved each time: milliseconds, and twice the memory.
        self._long: memoryview | None = None
        self._filled = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Keep `data`.

        The first piece of a long frame takes its own size alone; the next one, the memory for
        the whole body. Whoever has to find room for that does so between the two.
        """
        view = memoryview(data)
        if self._long is None and self._is_long_and_partial():
            self._lengthen()
        if self._long is not None:
            view = self._fill(self._long, view)
        self._buffer += view

    @property
    def whole(self) -> int | None:
        """How long the next body is; 0 where it is too long, None where more has to arrive."""
        if self._long is not None:
            return len(self._long) if self._filled == len(self._long) else None
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int(_LENGTH.unpack_from(self._buffer)[0])
        if length > self._max_bytes:
            return 0
        return length if len(self._buffer) >= HEADER_BYTES + length else None

    @property
    def missing(self) -> int:
        """How many bytes of the frame that has begun have not arrived; 0 where nobody knows."""
        if self._long is not None:
            return len(self._long) - self._filled
        if len(self._buffer) < HEADER_BYTES:
            return 0
        return max(0, HEADER_BYTES + self.pending - len(self._buffer))

    def take(self) -> bytes | memoryview:
        """Return the body that is `whole`; nothing here refers to it any more.

        Raises `FrameTooLarge` where it is too long; the stream is of no more use.
        """
        if self.pending > self._max_bytes:
            raise FrameTooLarge(
                f"a frame of {self.pending} bytes is over the limit of {self._max_bytes}"
            )
        if self._long is not None:
            body, self._long, self._filled = self._long, None, 0
            return body
        end = HEADER_BYTES + self.pending
        if end > LONG_FRAME_BYTES:  # the rest is shorter: that is what is copied
            whole, self._buffer = self._buffer, self._buffer[end:]
            return memoryview(whole)[HEADER_BYTES:end]
        short = bytes(memoryview(self._buffer)[HEADER_BYTES:end])
        del self._buffer[:end]
        return short

    @property
    def buffered(self) -> int:
        """Bytes kept of frames that have not been taken."""
        return len(self._buffer) + (HEADER_BYTES + self._filled if self._long is not None else 0)

    @property
    def pending(self) -> int:
        """How long the body of the frame is that has begun; 0 where that is not known yet."""
        if self._long is not None:
            return len(self._long)
        if len(self._buffer) < HEADER_BYTES:
            return 0
        return int(_LENGTH.unpack_from(self._buffer)[0])

    def _is_long_and_partial(self) -> bool:
        length = self.pending
        return LONG_FRAME_BYTES < length <= self._max_bytes and (
            len(self._buffer) < HEADER_BYTES + length
        )

    def _lengthen(self) -> None:
        self._long = np.empty(self.pending, np.uint8).data  # no byte of it is written in advance
        begun, self._buffer = self._buffer, bytearray()
        self._fill(self._long, memoryview(begun)[HEADER_BYTES:])

    def _fill(self, body: memoryview, data: memoryview) -> memoryview:
        count = min(len(body) - self._filled, len(data))
        body[self._filled : self._filled + count] = data[:count]
        self._filled += count
        return data[count:]
