"""The daemon's end of the stream: bytes to the maps of requests, in steps, and what that takes."""

from typing import Any

from client_lib.wire.frames import Frames
from client_lib.wire.walk import PIECE_BYTES, Pace, Shape, Steps, Walk

# Handing a map over, and what is done with it then, takes as long as so many bytes of text.
_FRAME_WORK = 8 * 1024
# One character of four bytes makes all of a text's take as much. Its header, its place in a list
# and in a tuple, or its entry in a map that grows.
_BYTES_OF_A_BYTE = 4
_BYTES_OF_A_VALUE = 160
# A step's bytes once more, and a text at the width that it was begun with.
_COPIES_IN_A_STEP = 3


class RequestDecoder:
    """Splits a stream of bytes into maps of `shape`. `max_bytes` bounds one frame's body."""

    def __init__(self, max_bytes: int, shape: Shape) -> None:
        self._frames = Frames(max_bytes)
        self._shape = shape
        self._pace = Pace()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Keep `data`; `take` makes maps of what is `whole`."""
        self._frames.feed(data)

    def take(self) -> Steps[dict[str, Any]]:
        """Return the map in the frame that is `whole`, a step at a time.

        Raises `FrameTooLarge` or another `ProtocolError` where it is too long, or no map; the
        stream is of no more use. Steps that are left take the frame with them; the next ones go
        on behind it.
        """
        # No name keeps a body, or its map, while whoever takes the map takes a while.
        message = yield from Walk(self._frames.take(), self._shape, self._pace).message()
        if self._pace.spend(_FRAME_WORK):
            yield
        return message

    @property
    def whole(self) -> int | None:
        """How long the body of the next frame is; 0 where it is too long, and can be refused.

        None where more has to arrive first.
        """
        return self._frames.whole

    @property
    def missing(self) -> int:
        """How many bytes of the frame that has begun have not arrived; 0 where nobody knows."""
        return self._frames.missing

    @property
    def buffered(self) -> int:
        """Bytes kept of frames that are not decoded yet."""
        return self._frames.buffered

    def most_decoding(self, length: int) -> int:
        """Return what is made of a frame of `length` bytes at most while it is decoded.

        Whatever is in it, and with what a step takes and gives back at once.
        """
        values = min(length, self._shape.values)
        at_once = min(length, max(self._shape.text_bytes, 2 * PIECE_BYTES))
        made = _BYTES_OF_A_BYTE * length + _BYTES_OF_A_VALUE * values
        return made + _COPIES_IN_A_STEP * at_once
