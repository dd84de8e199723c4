"""The daemon's decoder: bytes to request maps in short steps, and the memory that this takes."""

from typing import Any

from client_lib.wire.frames import Frames
from client_lib.wire.walk import PIECE_BYTES, Pace, Shape, Steps, Walk

# Handling a decoded map takes as long as decoding this many bytes of text.
_FRAME_WORK = 8 * 1024
# A single wide character makes every character of its string take four bytes.
_BYTES_OF_A_BYTE = 4
# The object's header and its place in a list and in a tuple, or its entry in a growing dict.
_BYTES_OF_A_VALUE = 160
# Another copy of a step's bytes, and a string at its width before it was widened.
_COPIES_IN_A_STEP = 3


class RequestDecoder:
    """Decodes a byte stream into maps within `shape`. `max_bytes` limits one frame's body."""

    def __init__(self, max_bytes: int, shape: Shape) -> None:
        self._frames = Frames(max_bytes)
        self._shape = shape
        self._pace = Pace()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer `data`, for `take` to decode once a frame is `whole`."""
        self._frames.feed(data)

    def take(self) -> Steps[dict[str, Any]]:
        """Decode the next complete frame in steps, and return its map.

        Raises `FrameTooLarge` or another `ProtocolError` if it is too long or not a map; the stream
        is then unusable. Abandoning the steps discards the frame; the next call decodes the one
        after it.
        """
        # Bind no name to the body or its map: it would stay alive while the consumer is busy.
        message = yield from Walk(self._frames.take(), self._shape, self._pace).message()
        if self._pace.spend(_FRAME_WORK):
            yield
        return message

    @property
    def whole(self) -> int | None:
        """Length of the next complete body; None if it is incomplete.

        0 if it is too long; `take` then raises `FrameTooLarge`.
        """
        return self._frames.whole

    @property
    def missing(self) -> int:
        """Bytes of the current frame that have not arrived; 0 if its length is unknown."""
        return self._frames.missing

    @property
    def buffered(self) -> int:
        """Bytes buffered of frames that are not decoded yet."""
        return self._frames.buffered

    def most_decoding(self, length: int) -> int:
        """Return an upper bound in bytes on the memory that decoding `length` bytes takes.

        It holds for any content, and includes a step's temporary copies.
        """
        values = min(length, self._shape.values)
        at_once = min(length, max(self._shape.text_bytes, 2 * PIECE_BYTES))
        made = _BYTES_OF_A_BYTE * length + _BYTES_OF_A_VALUE * values
        return made + _COPIES_IN_A_STEP * at_once
