"""Splits a byte stream into frames: a 4-byte big-endian length, then the body."""

import struct

import numpy as np

from client_lib.wire.errors import FrameTooLarge

_LENGTH = struct.Struct("!I")
HEADER_BYTES = _LENGTH.size
LONG_FRAME_BYTES = 64 * 1024
"""Memory for a longer body is allocated in one piece, see `Frames.feed`."""


def framed(body: bytes) -> bytes:
    """Return `body` prefixed with its length."""
    return _LENGTH.pack(len(body)) + body


class Frames:
    """The complete and partial frames that have not been taken yet.

    `max_bytes` limits one frame's body. It is checked as soon as the length is known, before the
    body arrives.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        # The body of a long frame, and how much of it has arrived. Growing a buffer instead would
        # copy it each time, which costs milliseconds and twice the memory.
        self._long: memoryview | None = None
        self._filled = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer `data`.

        The first piece of a long frame takes only its own size; the second one allocates memory for
        the whole body. Between the two, the caller can reserve that memory.
        """
        view = memoryview(data)
        if self._long is None and self._is_long_and_partial():
            self._lengthen()
        if self._long is not None:
            view = self._fill(self._long, view)
        self._buffer += view

    @property
    def whole(self) -> int | None:
        """Length of the next complete body; 0 if it is too long, None if it is incomplete."""
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
        """Bytes of the current frame that have not arrived; 0 if its length is unknown."""
        if self._long is not None:
            return len(self._long) - self._filled
        if len(self._buffer) < HEADER_BYTES:
            return 0
        return max(0, HEADER_BYTES + self.pending - len(self._buffer))

    def take(self) -> bytes | memoryview:
        """Return the next complete body, and keep no reference to it.

        Call it only if `whole` is not None. Raises `FrameTooLarge` if the body is too long; the
        stream is then unusable.
        """
        if self.pending > self._max_bytes:
            raise FrameTooLarge(
                f"a frame of {self.pending} bytes exceeds the limit of {self._max_bytes}"
            )
        if self._long is not None:
            body, self._long, self._filled = self._long, None, 0
            return body
        end = HEADER_BYTES + self.pending
        if end > LONG_FRAME_BYTES:  # copy the rest instead, which is shorter
            whole, self._buffer = self._buffer, self._buffer[end:]
            return memoryview(whole)[HEADER_BYTES:end]
        short = bytes(memoryview(self._buffer)[HEADER_BYTES:end])
        del self._buffer[:end]
        return short

    @property
    def buffered(self) -> int:
        """Bytes buffered of frames that have not been taken."""
        return len(self._buffer) + (HEADER_BYTES + self._filled if self._long is not None else 0)

    @property
    def pending(self) -> int:
        """Length of the current frame's body; 0 if it is not known yet."""
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
        self._long = np.empty(self.pending, np.uint8).data  # memory is not zeroed
        begun, self._buffer = self._buffer, bytearray()
        self._fill(self._long, memoryview(begun)[HEADER_BYTES:])

    def _fill(self, body: memoryview, data: memoryview) -> memoryview:
        count = min(len(body) - self._filled, len(data))
        body[self._filled : self._filled + count] = data[:count]
        self._filled += count
        return data[count:]
