"""Frames: a 4-byte big-endian length, then that many bytes of one msgpack map.

Owns bytes only; what the maps mean is `messages`' business.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from client_lib.wire.errors import FrameTooLarge, ProtocolError

_LENGTH = struct.Struct("!I")
HEADER_BYTES = _LENGTH.size

# msgpack allocates a list as soon as it has read its length: a few hostile bytes must not
# reserve gigabytes, so the lengths that a frame may declare are bounded before it is read. An
# element takes a byte at least, so no honest list is longer than its frame either.
_MAX_ARRAY = 65_536
_MAX_MAP = 1_024


def encode(message: Mapping[str, Any]) -> bytes:
    """Return `message` as one frame."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    return _LENGTH.pack(len(body)) + body


@dataclass(frozen=True, slots=True)
class Shape:
    """What a frame may hold: lists of so many elements, so many lists and maps in all.

    A container of a byte or two costs a hundred times that in memory: a frame within its limit
    of bytes could take gigabytes, and seconds, without a limit of these.
    """

    longest_list: int = _MAX_ARRAY
    containers: int | None = None


def decode(body: bytes | memoryview, shape: Shape = Shape()) -> dict[str, Any]:
    """Return the map in one frame's body.

    Raises `ProtocolError` for anything that is not exactly one msgpack map with string keys, and
    for what is not of `shape`.
    """
    try:
        message = msgpack.unpackb(
            body,
            max_array_len=min(shape.longest_list, len(body)),
            max_map_len=_MAX_MAP,
            max_ext_len=0,
            **_hooks(shape),
        )
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        detail = str(error) or type(error).__name__
        raise ProtocolError(f"a frame is not msgpack: {detail}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holds a {type(message).__name__}, not a map")
    if not all(isinstance(key, str) for key in message):
        raise ProtocolError("a frame's map has a key that is not a string")
    return message


def _hooks(shape: Shape) -> dict[str, Any]:
    if shape.containers is None:
        return {}
    left = shape.containers

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {shape.containers} lists and maps")
        return container

    return {"object_hook": count, "list_hook": count}


class FrameDecoder:
    """Splits a stream of bytes into maps.

    `max_bytes` bounds one frame's body and is checked on the length alone, before a byte of
    the body is kept; `shape` bounds what is in it.
    """

    def __init__(self, max_bytes: int, shape: Shape = Shape()) -> None:
        self._max_bytes = max_bytes
        self._shape = shape
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[dict[str, Any]]:
        """Yield every map that `data` completes; keep the rest for the next call.

        Raises `FrameTooLarge` or another `ProtocolError` at the first frame that is too long
        or not a map; the maps before it have been yielded, and the stream is of no more use.
        """
        self.append(data)
        # No name keeps a body, or its map, while whoever takes the map takes a while.
        while self.whole is not None:
            yield self.take()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Keep `data`, which follows what has been kept."""
        self._buffer += data

    def take(self) -> dict[str, Any]:
        """Return the map in the frame that is `whole`.

        Raises `FrameTooLarge` or another `ProtocolError`: then the stream is of no more use.
        """
        length = self._length
        if length > self._max_bytes:
            raise FrameTooLarge(f"a frame of {length} bytes is over the limit of {self._max_bytes}")
        return decode(self._cut(), self._shape)

    @property
    def buffered(self) -> int:
        """Bytes kept of frames that have not been taken."""
        return len(self._buffer)

    @property
    def whole(self) -> int | None:
        """How long the body of the next frame is; 0 where it is too long, and can be refused.

        None where more has to arrive first.
        """
        if len(self._buffer) < HEADER_BYTES:
            return None
        if self._length > self._max_bytes:
            return 0
        return None if self.missing else self._length

    @property
    def missing(self) -> int:
        """How many bytes of the frame that has begun have not arrived; 0 where nobody knows."""
        if len(self._buffer) < HEADER_BYTES:
            return 0
        return max(0, HEADER_BYTES + self._length - len(self._buffer))

    @property
    def _length(self) -> int:
        return int(_LENGTH.unpack_from(self._buffer)[0])

    def _cut(self) -> bytes:
        end = HEADER_BYTES + self._length
        body = bytes(memoryview(self._buffer)[HEADER_BYTES:end])
        del self._buffer[:end]
        return body
