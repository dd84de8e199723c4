"""Maps to frames and back, as one side does that trusts the other.

What comes from whoever may connect is read by `walk` instead.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from client_lib.wire.errors import ProtocolError
from client_lib.wire.frames import Frames, framed

# msgpack allocates a list as soon as it has read its length: a few bytes of nonsense must not
# reserve gigabytes. An element takes a byte at least, so no honest list is longer than its frame
# either.
_MAX_ARRAY = 65_536
_MAX_MAP = 1_024


def encode(message: Mapping[str, Any]) -> bytes:
    """Return `message` as one frame."""
    return framed(msgpack.packb(message, use_bin_type=True))


def decode(body: bytes | memoryview) -> dict[str, Any]:
    """Return the map in one frame's body.

    Raises `ProtocolError` for anything that is not exactly one msgpack map with string keys.
    """
    try:
        message = msgpack.unpackb(
            body,
            max_array_len=min(_MAX_ARRAY, len(body)),
            max_map_len=_MAX_MAP,
            max_ext_len=0,
        )
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        detail = str(error) or type(error).__name__
        raise ProtocolError(f"a frame is not msgpack: {detail}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holds a {type(message).__name__}, not a map")
    if not all(isinstance(key, str) for key in message):
        raise ProtocolError("a frame's map has a key that is not a string")
    return message


class FrameDecoder:
    """Splits a stream of bytes into maps. `max_bytes` bounds one frame's body."""

    def __init__(self, max_bytes: int) -> None:
        self._frames = Frames(max_bytes)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[dict[str, Any]]:
        """Yield every map that `data` completes; keep the rest for the next call.

        Raises `FrameTooLarge` or another `ProtocolError` at the first frame that is too long
        or not a map; the maps before it have been yielded, and the stream is of no more use.
        """
        self._frames.feed(data)
        # No name keeps a body, or its map, while whoever takes the map takes a while.
        while self._frames.whole is not None:
            yield decode(self._frames.take())

    @property
    def buffered(self) -> int:
        """Bytes kept of a frame that is not complete yet."""
        return self._frames.buffered
