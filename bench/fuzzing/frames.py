"""Frames of a peer: requests with some of their fields exchanged, and what is none."""

from collections.abc import Mapping, Sequence

from bench.fuzzing.source import Source
from bench.fuzzing.values import mapping, packed, string, text, texts, value
from client_lib.wire.frames import HEADER_BYTES

_FIELDS: Sequence[str] = (
    "op", "id", "version", "client", "input", "model", "prompt_name", "role", "normalize",
    "dimensions", "precision", "truncate", "priority", "timeout_ms", "traceparent", "query",
    "documents", "top_n", "target", "format",
)  # fmt: skip
_LIKELY: Mapping[str, Sequence[object]] = {
    "precision": ("float32", "float16", "int8", "uint8", "binary", "ubinary"),
    "priority": ("interactive", "bulk"),
    "role": ("query", "document", None),
    "normalize": (True, False, None),
    "truncate": (True, False),
    "dimensions": (1, 8, 64, 65, None),
    "timeout_ms": (1, 20, 10_000, None),
    "top_n": (1, 3, None),
    "format": ("openmetrics", "prometheus"),
    "op": ("hello", "embed", "rerank", "status", "metrics", "ping", "cancel"),
    "target": (0, 1, 2, 3, 4),
    "id": (0, 1, 2, 3, 2**63 - 1),
}
_OPS = (
    "embed",
    "embed",
    "embed",
    "rerank",
    "rerank",
    "cancel",
    "ping",
    "status",
    "metrics",
    "hello",
)
_MOST_EXCHANGED = 4
LARGEST = 2**24


def frame(source: Source, number: int) -> bytes:
    """Return what a peer sends next; `number` is an id that it has not used."""
    kind = source.below(12)
    if kind < 8:
        return _framed(_request(source, number), 0)
    if kind == 8:
        return _framed(value(source), 0)
    if kind == 9:
        return _framed(source.literal(64), 0)
    if kind == 10:
        return source.literal(64)
    return _framed(_request(source, number), source.choice((1, -1, 4, -4, 1_000, 2**24, 2**31)))


def hello() -> bytes:
    return _framed(mapping([(packed("op"), packed("hello")), *_whole("hello", 0)]), 0)


def _request(source: Source, number: int) -> bytes:
    op = source.choice(_OPS)
    fields = dict(_whole(op, number, source))
    fields[packed("op")] = packed(op)
    for _ in range(source.below(_MOST_EXCHANGED + 1)):
        name = source.choice(_FIELDS)
        fields[packed(name)] = _exchanged(source, name)
    if source.below(8) == 7:
        fields[text(source)] = value(source)
    return mapping(list(fields.items()))


def _whole(op: str, number: int, source: Source | None = None) -> list[tuple[bytes, bytes]]:
    """Return the fields without which the op is none."""
    chance = source or Source(b"")
    needed = {
        "hello": lambda: [("version", packed(1))],
        "embed": lambda: [("input", _inputs(chance))],
        "rerank": lambda: [("query", string(chance.literal())), ("documents", _inputs(chance))],
        "cancel": lambda: [("target", packed(max(0, number - 1 - chance.below(4))))],
    }
    fields = [("id", packed(number)), *needed.get(op, list)()]
    return [(packed(name), each) for name, each in fields]


def _inputs(source: Source) -> bytes:
    some = [packed(f"text {source.byte()}") for _ in range(1 + source.below(3))]
    return texts(source) if source.below(4) == 3 else _short_list(some)


def _short_list(elements: Sequence[bytes]) -> bytes:
    return bytes([0x90 + len(elements)]) + b"".join(elements)


def _exchanged(source: Source, name: str) -> bytes:
    if name in _LIKELY and source.flag():
        return packed(source.choice(_LIKELY[name]))
    return value(source)


def _framed(body: bytes, lie: int) -> bytes:
    """Return `body` as a frame whose header says `lie` bytes more than there are."""
    body = body[:LARGEST]
    return (max(0, len(body) + lie) % 2**32).to_bytes(HEADER_BYTES, "big") + body
