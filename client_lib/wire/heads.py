"""What the first byte of a msgpack value means.

In the order of the bytes, after https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "plain value", "text", "binary", "list", "map", "extension", "unassigned code"
]
Head: TypeAlias = tuple[Kind, int, int]
"""The kind; the size in bytes or elements; the width of the size field that follows, or 0."""

_PLAIN: Head = ("plain value", 0, 0)
_EXTENSION: Head = ("extension", 0, 0)


def _plain(*sizes: int) -> list[Head]:
    return [("plain value", size, 0) for size in sizes]


def _short(kind: Kind, count: int) -> list[Head]:
    return [(kind, size, 0) for size in range(count)]


def _sized(kind: Kind, *widths: int) -> list[Head]:
    return [(kind, 0, width) for width in widths]


HEADS: tuple[Head, ...] = (
    *[_PLAIN] * 0x80,  # 00: 0 to 127
    *_short("map", 16),  # 80
    *_short("list", 16),  # 90
    *_short("text", 32),  # a0
    _PLAIN,  # c0: nil
    ("unassigned code", 0, 0),  # c1
    *[_PLAIN] * 2,  # c2: false, true
    *_sized("binary", 1, 2, 4),  # c4
    *[_EXTENSION] * 3,  # c7
    *_plain(4, 8),  # ca: floats
    *_plain(1, 2, 4, 8),  # cc: unsigned integers
    *_plain(1, 2, 4, 8),  # d0: signed integers
    *[_EXTENSION] * 5,  # d4
    *_sized("text", 1, 2, 4),  # d9
    *_sized("list", 2, 4),  # dc
    *_sized("map", 2, 4),  # de
    *[_PLAIN] * 0x20,  # e0: -32 to -1
)
