"""Decodes one request from an untrusted peer in short steps.

msgpack's own unpacker cannot be interrupted, and allocates each list at its claimed length. `Walk`
goes from value to value in short steps. It builds what requests consist of: plain values, and lists
of them, which msgpack unpacks in pieces. Anything else is skipped and replaced by a placeholder
that fails the field's check.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgpack

from client_lib.wire.errors import ProtocolError
from client_lib.wire.heads import HEADS, Kind

STEP_BYTES = 256 * 1024
"""The work of one step: this many bytes of text, or what takes as long."""
MAX_KEY_BYTES = 4_096
VALUE_WORK = 256
"""The cost of a value on top of its bytes, in bytes of text."""
PIECE_BYTES = 64 * 1024
"""How much msgpack's unpacker is fed at a time; its buffer is at most twice that."""

# Up to this many values, creating msgpack's unpacker takes longer than reading them one by one.
_FEW = 6
_T = TypeVar("_T")
Steps: TypeAlias = Generator[None, None, _T]
"""A computation that yields between steps and finally returns its result."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The limits on one request.

    A byte limit alone does not suffice: an empty container takes a byte on the wire and a hundred
    in memory, and each value takes time.

    `keys`: entries of one map.
    `containers`: lists and maps in total.
    `values`: values in total.
    `longest_list`: elements of one list.
    `text_bytes`: bytes of one text; longer ones are skipped.
    """

    keys: int
    containers: int
    values: int
    longest_list: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Placeholder for a skipped value of a kind that no request field accepts."""

    kind: str


@dataclass(frozen=True, slots=True)
class LongText:
    """Placeholder for a skipped text of `size` bytes, which exceeds the `limit`."""

    size: int
    limit: int


class Pace:
    """The work left in the current step."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = STEP_BYTES

    def spend(self, work: int) -> bool:
        """Subtract `work`; return whether that ended the step, and start another if so."""
        self._left -= work
        if self._left > 0:
            return False
        self._left = STEP_BYTES
        return True


class Walk:
    """Decodes one frame's body."""

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
        """Return the map in the body, in steps.

        Raises `ProtocolError` if the body is anything but a single msgpack map with string keys, or
        exceeds the shape.
        """
        try:
            yield from self._whole()
        except IndexError:
            raise ProtocolError("invalid msgpack in a frame: it ends too soon") from None
        except (ValueError, msgpack.UnpackException) as error:
            raise ProtocolError(f"invalid msgpack in a frame: {error}") from None
        return self._message

    def _whole(self) -> Steps[None]:
        kind, size = self._head()
        if kind != "map":
            raise ProtocolError(f"a frame's body is not a map but: {kind}")
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
            raise ProtocolError("invalid msgpack in a frame: bytes follow its map")
        if self._at > len(self._body):
            raise IndexError

    def _head(self) -> tuple[Kind, int]:
        """Read a value's head; return its kind, and how many bytes or elements follow."""
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
            raise ProtocolError(f"a frame has a key of {size} bytes; the limit is {MAX_KEY_BYTES}")
        return str(self._content(size), "utf-8")

    def _plain(self, kind: Kind, size: int) -> Any:
        if kind == "text":
            content = self._content(size)
            limit = self._shape.text_bytes
            return str(content, "utf-8") if size <= limit else LongText(size, limit)
        if kind == "plain value":
            self._at -= 1  # the head is part of the value
            return msgpack.unpackb(self._content(1 + size))
        if kind == "binary":
            self._content(size)
            return Unread(kind)
        raise ProtocolError(f"unsupported msgpack in a frame: it contains an {kind}")

    def _content(self, size: int) -> bytes | memoryview:
        start = self._at
        self._at = end = start + size
        if end > len(self._body):
            raise IndexError
        return self._body[start:end]

    def _enter(self, kind: Kind, size: int) -> int:
        """Count a container and its values against the limits; return the number of values."""
        shape = self._shape
        most = shape.keys if kind == "map" else shape.longest_list
        if size > most:
            raise ProtocolError(f"a frame has a {kind} of {size}; the limit is {most}")
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
        """Read a list with msgpack's unpacker; None if it holds anything but small values."""
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
        """Skip the remaining `values` of a container, including nested ones."""
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


# For msgpack's unpacker: no binary, list, map or extension, not even an empty one.
_PLAIN_VALUES = {
    **dict.fromkeys(("max_bin_len", "max_array_len", "max_map_len", "max_ext_len"), 0),
    **dict.fromkeys(("list_hook", "object_hook", "ext_hook"), _refuse),
}
