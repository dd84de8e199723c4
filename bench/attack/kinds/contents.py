"""Whole frames of msgpack that no client would send."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgpack

from bench.attack.kinds.attack import Attack
from bench.attack.target import LONG, Run, Target, framed, over_and_over, until_answered
from client_lib.wire.codec import encode

_NESTED_BYTES = 19_500
_MANY = 16_384  # as many elements as a list may have
_HUGE = (2**64 - 1, -(2**63), 2**63, -1, float("nan"), float("inf"), 1e308)


def _framed(make: Callable[[], bytes]) -> Run:
    """Return an attack of one frame over and over, on a connection of its own each."""
    frame = cache(lambda: framed(make()))
    return over_and_over(lambda target: until_answered(target, frame()))


def _embed_of(inputs: bytes) -> bytes:
    """Return an `embed` whose `input` is the msgpack `inputs`."""
    head: bytes = msgpack.packb({"op": "embed", "id": 1})
    return b"\x83" + head[1:] + msgpack.packb("input") + inputs


def _nils(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + b"\xc0" * count


def _long(change: Callable[[str], dict[str, Any]]) -> Run:
    """Return an attack of a request with 15 MiB where a word is due."""
    base = {"op": "embed", "id": 1, "input": ["a"]}
    frame = cache(lambda: encode({**base, **change("x" * LONG)}))
    return over_and_over(lambda target: until_answered(target, frame()))


def _long_client(target: Target) -> None:
    hello = {"op": "hello", "id": 0, "version": 1, "client": "x" * LONG}
    with target.connected(encode(hello)) as sock:
        target.did()
        sock.recv(1_024)


def _huge(target: Target) -> None:
    chance = target.chance
    field = chance.choice(("id", "dimensions", "timeout_ms", "target", "version", "top_n"))
    op = chance.choice(("embed", "cancel", "rerank", "hello"))
    rest = {"input": ["a"], "query": "a", "documents": ["a"], "target": 1}
    until_answered(target, encode({"op": op, "id": 1, **rest, field: chance.choice(_HUGE)}))


def _same_ids(target: Target) -> None:
    embed = encode({"op": "embed", "id": 1, "input": ["a b c"] * 50})
    until_answered(target, 20 * embed)


def _wrong_types(target: Target) -> None:
    wrong = (
        b"bytes", msgpack.ExtType(5, b"x" * 300), msgpack.Timestamp(0), "\ud800", [["a"]],
        {"a": "b"}, None, True, 1.5, [b"a"], [None], ["a", 1], "",
    )  # fmt: skip
    chance = target.chance
    field = chance.choice(("op", "id", "input", "model", "priority", "precision", "traceparent"))
    message = {"op": "embed", "id": 1, "input": ["a"], field: chance.choice(wrong)}
    body = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")
    until_answered(target, framed(body))


def _small_maps() -> bytes:
    return _embed_of(b"\xdd" + _MANY.to_bytes(4, "big") + b"\x80" * _MANY)


def _many_keys() -> bytes:
    return msgpack.packb({"op": "ping", "id": 1, **{f"key {i}": i for i in range(1_020)}})


ATTACKS: Mapping[str, Attack] = {
    "nested arrays": Attack("frames", _framed(lambda: b"\x91" * _NESTED_BYTES)),
    "nested arrays in a field": Attack(
        "frames", _framed(lambda: _embed_of(b"\x91" * _NESTED_BYTES))
    ),
    "many small maps": Attack("frames", _framed(_small_maps)),
    "many keys": Attack("frames", _framed(_many_keys)),
    "a list of nil, as long as lists may be": Attack(
        "frames", _framed(lambda: _embed_of(_nils(_MANY)))
    ),
    "a list of nil of 15 MiB": Attack("frames of 15 MiB", _framed(lambda: _embed_of(_nils(LONG)))),
    "long model name": Attack("frames of 15 MiB", _long(lambda long: {"model": long})),
    "long prompt name": Attack("frames of 15 MiB", _long(lambda long: {"prompt_name": long})),
    "long op": Attack("frames of 15 MiB", _long(lambda long: {"op": long})),
    "long traceparent": Attack("frames of 15 MiB", _long(lambda long: {"traceparent": long})),
    "long unknown key": Attack("frames of 15 MiB", _long(lambda long: {long: 1})),
    "long unknown value": Attack("frames of 15 MiB", _long(lambda long: {"unknown": long})),
    "long client name": Attack("frames of 15 MiB", over_and_over(_long_client)),
    "huge numbers": Attack("frames", over_and_over(_huge)),
    "equal ids": Attack("connections", over_and_over(_same_ids)),
    "wrong types": Attack("frames", over_and_over(_wrong_types)),
}
