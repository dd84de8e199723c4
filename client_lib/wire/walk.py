"""One request's bytes to its map, by whoever may have sent them.

msgpack's own reader takes as long as it takes, and reserves each list at the length that is
claimed for it. Here the bytes are walked from value to value, in short steps. What a request has
is built: plain values, and lists of texts, by msgpack a stretch at a time. Everything else is
passed over, and something stands in its place by which a field's check fails.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgpack

from client_lib.wire.errors import ProtocolError
from client_lib.wire.heads import HEADS, Kind

STEP_BYTES = 256 * 1024
"""A step's work: so many bytes of text, or what takes as long as they do."""
MAX_KEY_BYTES = 4_096
VALUE_WORK = 256
"""What passing a value costs beside its bytes, in bytes of text."""
PIECE_BYTES = 64 * 1024
"""How much msgpack's own reader is given at a time; twice that is its buffer, at most."""

# Fewer values are read one by one as fast as msgpack's own reader is made.
_FEW = 6
_T = TypeVar("_T")
Steps: TypeAlias = Generator[None, None, _T]
"""Yields between steps, and returns what came of them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request may hold: keys, lists and maps, values in all; elements of one list.

    A container of a byte or two costs a hundred times that in memory, and each value costs time:
    bytes alone bound neither. A text of more than `text_bytes` is passed over.
    """

    keys: int
    containers: int
    values: int
    longest_list: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands where a value was passed over: no field of a request takes one of this kind."""

    kind: str


@dataclass(frozen=True, slots=True)
class LongText:
    """Stands where a text of `size` bytes was passed over, for it is over the `limit`."""

    size: int
    limit: int


class Pace:
    """How much of a step is left."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = STEP_BYTES

    def spend(self, work: int) -> bool:
        """Take `work` from the step; whether that was its end, and another begins."""
        self._left -= work
        if self._left > 0:
            return False
        self._left = STEP_BYTES
        return True


class Walk:
    """The way through one frame's body."""

    __slots__ = (
        "_at", "_body", "_containers", "_message", "_pace", "_shape", "_values",
    )  # fmt: skip

    def __init__(self, body: bytes | memoryview, shape: Shape, pace: Pace) -> None:
        self._body = body
        self._shape = shape
        self._pace = pace
        self._at = 0
        self._containers = 0
        self._values = 0
        self._message: dict[str, Any] = {}

    def message(self) -> Steps[dict[str, Any]]:
        """Return the map in the body, a step at a time.

        Raises `ProtocolError` for what is not exactly one msgpack map with string keys, and for
        what is not of the shape.
        """
        try:
            yield from self._whole()
        except IndexError:
            raise ProtocolError("a frame is not msgpack: it ends too soon") from None
        except (ValueError, msgpack.UnpackException) as error:
            raise ProtocolError(f"a frame is not msgpack: {error}") from None
        return self._message

    def _whole(self) -> Steps[None]:
        kind, size = self._head()
        if kind != "map":
            raise ProtocolError(f"a frame's body is no map, but: {kind}")
        self._enter(kind, size)
        for _ in range(size):
            before = self._at
            key = self._key()
            kind, size = self._head()
            if kind == "list":
                self._message[key] = yield from self._list(size)
                continue
            if kind == "map":
                self._message[key] = yield from self._pass_over(self._enter(kind, size), kind)
                continue
            self._message[key] = self._plain(kind, size)
            if self._pace.spend(VALUE_WORK + self._at - before):
                yield
        if self._at < len(self._body):
            raise ProtocolError("a frame is not msgpack: bytes follow its map")
        if self._at > len(self._body):
            raise IndexError

    def _head(self) -> tuple[Kind, int]:
        """Step over a value's head; return its kind, and how many bytes or elements follow."""
        start = self._at + 1
        kind, size, width = HEADS[self._body[start - 1]]
        if width:
            size = int.from_bytes(self._body[start : start + width], "big")
        self._at = start + width
        return kind, size

    def _key(self) -> str:
        kind, size = self._head()
        if kind != "text":
            raise ProtocolError("a frame's map has a key that is not a string")
        if size > MAX_KEY_BYTES:
            raise ProtocolError(f"a frame's map has a key of {size} bytes; {MAX_KEY_BYTES} at most")
        return str(self._content(size), "utf-8")

    def _plain(self, kind: Kind, size: int) -> Any:
        if kind == "text":
            content = self._content(size)
            limit = self._shape.text_bytes
            return str(content, "utf-8") if size <= limit else LongText(size, limit)
        if kind == "plain value":
            self._at -= 1  # its kind is in the head
            return msgpack.unpackb(self._content(1 + size))
        if kind == "binary":
            self._content(size)
            return Unread(kind)
        raise ProtocolError(f"a frame is not msgpack as it is spoken here: it holds an {kind}")

    def _content(self, size: int) -> bytes | memoryview:
        start = self._at
        self._at = end = start + size
        if end > len(self._body):
            raise IndexError
        return self._body[start:end]

    def _enter(self, kind: Kind, size: int) -> int:
        """Count a container and the values in it; return how many those are."""
        shape = self._shape
        most = shape.keys if kind == "map" else shape.longest_list
        if size > most:
            raise ProtocolError(f"a frame has a {kind} of {size}; {most} at most")
        values = 2 * size if kind == "map" else size
        self._containers += 1
        self._values += values
        if self._containers > shape.containers:
            raise ProtocolError(f"a frame has more than {shape.containers} lists and maps")
        if self._values > shape.values:
            raise ProtocolError(f"a frame has more than {shape.values} values")
        return values

    def _list(self, count: int) -> Steps[list[Any] | Unread]:
        self._enter("list", count)
        if count > _FEW and (values := (yield from self._plain_values(count))) is not None:
            return values
        return (yield from self._texts_one_by_one(count))

    def _plain_values(self, count: int) -> Steps[list[Any] | None]:
        """Read a list by msgpack's own reader; None where it holds what could be large."""
        size = max(1, min(len(self._body) - self._at, 2 * PIECE_BYTES))
        reader = msgpack.Unpacker(
            read_size=size,
            max_str_len=min(self._shape.text_bytes, PIECE_BYTES // 2),
            **_PLAIN_VALUES,
        )
        try:
            values = yield from self._read(reader, count)
        except (ValueError, msgpack.UnpackException):
            return None
        self._at += reader.tell()
        return values

    def _read(self, reader: Any, count: int) -> Steps[list[Any]]:
        values: list[Any] = []
        fed = self._at
        while left := count - len(values):
            read = list(islice(reader, min(left, STEP_BYTES // VALUE_WORK)))
            values += read
            work = VALUE_WORK * len(read)
            if not read:
                piece = self._body[fed : fed + PIECE_BYTES]
                if not piece:
                    raise msgpack.OutOfData
                reader.feed(piece)
                work = len(piece)
                fed += work
            if self._pace.spend(work):
                yield
        return values

    def _texts_one_by_one(self, count: int) -> Steps[list[Any] | Unread]:
        texts: list[Any] = []
        for left in range(count, 0, -1):
            before = self._at
            kind, size = self._head()
            if kind != "text":
                self._at = before
                del texts
                return (yield from self._pass_over(left, "list"))
            texts.append(self._plain(kind, size))
            if self._pace.spend(VALUE_WORK + self._at - before):
                yield
        return texts

    def _pass_over(self, values: int, container: Kind) -> Steps[Unread]:
        """Step over the `values` that are left of a container, and all within them."""
        open_ = [(values, container)]
        while open_:
            left, inside = open_.pop()
            if not left:
                continue
            open_.append((left - 1, inside))
            before = self._at
            kind, size = self._head()
            if inside == "map" and left % 2 == 0 and kind not in ("text", "binary"):
                raise ProtocolError("a map in a frame has a key that is neither text nor binary")
            if kind in ("list", "map"):
                open_.append((self._enter(kind, size), kind))
            else:
                self._plain(kind, size)
            if self._pace.spend(VALUE_WORK + self._at - before):
                yield
        return Unread(container)


def _refuse(*_: object) -> NoReturn:
    raise ValueError


# For msgpack's own reader: no bytes, no list or map, nor an extension, also where they are empty.
_PLAIN_VALUES = {
    **dict.fromkeys(("max_bin_len", "max_array_len", "max_map_len", "max_ext_len"), 0),
    **dict.fromkeys(("list_hook", "object_hook", "ext_hook"), _refuse),
}
