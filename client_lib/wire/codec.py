"""Encodes maps as frames, and decodes frames from a trusted peer.

Input from untrusted peers is decoded by `walk` instead.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from client_lib.wire.errors import ProtocolError
from client_lib.wire.frames import Frames, framed

# msgpack allocates a list as soon as it has read its length: a few bytes of garbage must not
# reserve gigabytes. Every element takes at least one byte, so a list is never longer than its
# frame.
_MAX_ARRAY = 65_536
_MAX_MAP = 1_024


def encode(message: Mapping[str, Any]) -> bytes:
    """Return `message` as one frame."""
    return framed(msgpack.packb(message, use_bin_type=True))


def decode(body: bytes | memoryview) -> dict[str, Any]:
    """Return the map in one frame's body.

    Raises `ProtocolError` for anything but a single msgpack map with string keys.
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
        raise ProtocolError(f"invalid msgpack in a frame: {detail}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame contains a {type(message).__name__}, not a map")
    if not all(isinstance(key, str) for key in message):
        raise ProtocolError("a frame's map has a key that is not a string")
    return message


class FrameDecoder:
    """Decodes a byte stream into maps. `max_bytes` limits one frame's body."""

    def __init__(self, max_bytes: int) -> None:
        self._frames = Frames(max_bytes)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[dict[str, Any]]:
        """Yield every map that `data` completes; buffer the rest.

        Raises `FrameTooLarge` or another `ProtocolError` at the first frame that is too long or not
        a map, after the maps before it were yielded; the stream is then unusable.
        """
        self._frames.feed(data)
        # Bind no name to a body or its map: it would stay alive while the consumer is busy.
        while self._frames.whole is not None:
            yield decode(self._frames.take())

    @property
    def buffered(self) -> int:
        """Bytes buffered of an incomplete frame."""
        return self._frames.buffered
