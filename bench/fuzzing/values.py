"""msgpack of any kind, well formed or not, out of choices."""

from collections.abc import Callable, Sequence

import msgpack

from bench.fuzzing.source import Source

_DEEPEST = 5
_MOST_ELEMENTS = 8
_INTEGERS = (
    0, 1, -1, 2, 16, 255, 256, 2_048, 2_049, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, -(2**31), -(2**63),
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, 1.0, 1e-310, 1e308, float("inf"), float("-inf"), float("nan"))
_WORDS = (
    "a", "", "copper museum", "query", "document", "float16", "ubinary", "interactive", "bulk",
    "openmetrics", "prometheus", "model", "text\x00", "é", "漢字", "🙂", "z\u0300\u0301\u0302",
    "[CLS]", "[MASK] [SEP]", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)  # fmt: skip
_UNITS = (
    b"x", b" ", b"a ", b"\xc3\xa9", b"\xe6\xbc\xa2", b"\xcc\x80", b"\xed\xa0\x80", b"\xff", b"\x00",
    b"copper ", b"z\xcc\x80\xcc\x81", b"\xf0\x9f\x99\x82", b".", b"##", b"\xef\xbf\xbf",
)  # fmt: skip
_OPENINGS = (
    b"\x91",
    b"\x81\xa1a",
    b"\xdc\x00\x02\xc0",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x00\x00\x00\x01\xa1a",
)


def value(source: Source, depth: int = 0) -> bytes:
    """Return the msgpack of one value, or what looks like it."""
    kinds = _LEAVES if depth >= _DEEPEST else _KINDS
    return source.choice(kinds)(source, depth)


def text(source: Source, _: int = 0) -> bytes:
    """Return the msgpack of a `str`: a word, a few bytes, or one thing many times."""
    kind = source.below(4)
    if kind == 0:
        return packed(source.choice(_WORDS))
    if kind == 1:
        return string(source.literal())
    unit = source.choice(_UNITS)
    return string(unit * (source.length() // len(unit)))


def texts(source: Source, _: int = 0) -> bytes:
    """Return the msgpack of a list of texts, some of them different."""
    some = [text(source) for _ in range(source.below(4))]
    count = min(source.length(), 2**12) if source.below(4) == 0 else 0
    return _array([*some, *[packed("a")] * count])


def string(data: bytes) -> bytes:
    """Return `data` as a msgpack `str`, whether or not it is UTF-8."""
    return b"\xdb" + len(data).to_bytes(4, "big") + data


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def mapping(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the msgpack of a map of keys and values that are msgpack themselves."""
    head = b"\xde" + len(fields).to_bytes(2, "big")
    return head + b"".join(key + value for key, value in fields)


def _array(elements: Sequence[bytes]) -> bytes:
    return b"\xdd" + len(elements).to_bytes(4, "big") + b"".join(elements)


def _list(source: Source, depth: int) -> bytes:
    return _array([value(source, depth + 1) for _ in range(source.below(_MOST_ELEMENTS))])


def _many(source: Source, _: int) -> bytes:
    count = source.length()
    element = value(source, _DEEPEST)
    count = min(count, 2**24 // max(1, len(element)))
    return b"\xdd" + count.to_bytes(4, "big") + element * count


def _map(source: Source, depth: int) -> bytes:
    fields = []
    for _ in range(source.below(_MOST_ELEMENTS)):
        key = text(source) if source.below(4) else value(source, _DEEPEST)
        fields.append((key, value(source, depth + 1)))
    return mapping(fields)


def _nested(source: Source, _: int) -> bytes:
    opening = source.choice(_OPENINGS)
    return opening * (source.length() // len(opening))


def _extension(source: Source, _: int) -> bytes:
    data = source.literal()
    return packed(msgpack.ExtType(source.below(128), data))


_LEAVES: Sequence[Callable[[Source, int], bytes]] = (
    lambda *_: b"\xc0",
    lambda source, _: packed(source.flag()),
    lambda source, _: packed(source.byte()),
    lambda source, _: packed(source.choice(_INTEGERS)),
    lambda source, _: packed(source.choice(_FLOATS)),
    text,
    text,
    lambda source, _: packed(source.literal()),
    lambda source, _: packed(bytes(min(source.length(), 2**20))),
    _extension,
    lambda source, _: packed(msgpack.Timestamp(source.byte(), source.byte())),
    lambda source, _: source.literal(),
)
_KINDS = (*_LEAVES, _list, _many, _map, _nested, texts)
