"""The daemon's end of the stream: bytes to the maps of requests, in steps, and what that holds."""

from collections.abc import Iterator
from typing import Any

from client_lib.wire.frames import Frames
from client_lib.wire.walk import PIECE_BYTES, Pace, Shape, Steps, Walk

# Handing a map over, and what is done with it then, takes as long as so many bytes of text.
_FRAME_WORK = 8 * 1024
# Of frames that are not long: the beginning of one, and the piece that was fed after it, in a
# buffer that has grown by an eighth too much; and msgpack's reader, without a buffer.
_BUFFER_BYTES = 208 * 1024
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
        self._walks: set[Walk] = set()  # one, unless somebody keeps an iterator that he left

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[dict[str, Any] | None]:
        """Yield every map that `data` completes, and None after each step without one.

        Raises `FrameTooLarge` or another `ProtocolError` at the first frame that is too long
        or not a map; the stream is of no more use. An iterator that is left takes the frame with
        it that it was at; the next one goes on behind that.
        """
        self._frames.feed(data)
        pace = Pace()
        # No name keeps a body, or its map, while whoever takes the map takes a while.
        while self._frames.is_whole():
            yield (yield from self._through(pace))
            if pace.spend(_FRAME_WORK):
                yield None

    @property
    def buffered(self) -> int:
        """Bytes kept of frames that are not decoded yet."""
        return self._frames.buffered

    @property
    def pending(self) -> int:
        """How long the body of the frame is that has begun; 0 where that is not known yet."""
        return self._frames.pending

    @property
    def held(self) -> int:
        """Bytes of memory: buffers, filled or not, and a frame that is decoded with what it is."""
        return self._frames.capacity + sum(walk.held for walk in self._walks)

    def most_held(self, length: int) -> int:
        """Return what `held` is at most while a frame of `length` bytes comes and is decoded.

        Whatever is in it, and with what a step takes and gives back at once. Where no more than
        `LONG_FRAME_BYTES` are fed at a time; more count as themselves.
        """
        values = min(length, self._shape.values)
        at_once = min(length, max(self._shape.text_bytes, 2 * PIECE_BYTES))
        made = _BYTES_OF_A_BYTE * length + _BYTES_OF_A_VALUE * values
        return _BUFFER_BYTES + length + made + _COPIES_IN_A_STEP * at_once

    def _through(self, pace: Pace) -> Steps[dict[str, Any]]:
        walk = Walk(self._frames.take(), self._shape, pace)
        self._walks.add(walk)
        try:
            return (yield from walk.message())
        finally:
            self._walks.discard(walk)
