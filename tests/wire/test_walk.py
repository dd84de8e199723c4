"""Requests are decoded in short steps, within bounded memory, and as msgpack defines."""

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client_lib.wire.codec import encode
from client_lib.wire.errors import BadRequest, ProtocolError, TooLarge
from client_lib.wire.frames import HEADER_BYTES, LONG_FRAME_BYTES, framed
from client_lib.wire.incoming import RequestDecoder
from client_lib.wire.messages import Embed, Hello, Ping, request_to_map
from client_lib.wire.protocol import VERSION, Limits, Received, Refused, ServerConnection
from client_lib.wire.walk import STEP_BYTES, VALUE_WORK, LongText, Steps, Unread

from ..sizes import reachable
from .test_fuzz import FUZZ, damage, damaged

LIMITS = Limits(max_frame_bytes=2**16, max_inputs=4)
LARGE = Limits()
HELLO = encode(request_to_map(Hello(id=0, version=VERSION)))
_CONTAINERS = 16


def opened(limits: Limits = LIMITS) -> ServerConnection:
    connection = ServerConnection(limits)
    list(connection.receive(HELLO))
    connection.reply(0)
    return connection


def refuse(*_: object) -> None:
    raise ValueError("an extension")


def plain_decode(body: bytes, limits: Limits) -> dict[str, Any]:
    """Decode `body` with msgpack's own unpacker and equivalent limits."""
    left = _CONTAINERS

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("containers")
        return container

    try:
        message = msgpack.unpackb(
            body,
            max_array_len=min(8 * limits.max_inputs, len(body)),
            max_map_len=1_024,
            max_ext_len=0,
            ext_hook=refuse,
            object_hook=count,
            list_hook=count,
        )
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException):
        raise ProtocolError("not msgpack") from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise ProtocolError("not a map with string keys")
    return message


def plainly(body: bytes, limits: Limits) -> Received:
    connection = opened(limits)
    try:
        return connection._judge(plain_decode(body, limits))
    except ProtocolError:
        return Refused(None, BadRequest(""), True)


def kind(received: Received) -> Any:
    if isinstance(received, Refused):
        return received.id, type(received.error), received.fatal
    return received


def walking(connection: ServerConnection, data: bytes) -> Iterator[Received | None]:
    connection.feed(data)
    while connection.whole is not None:
        yield from connection.take()


def read(connection: ServerConnection, data: bytes) -> list[Received]:
    return list(connection.receive(data))


# Results.

short = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.text(max_size=40) | st.binary(max_size=4) | st.just(msgpack.Timestamp(1))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=2))
)  # fmt: skip
keys = st.text(max_size=4) | st.binary(max_size=4) | st.integers(0, 3)
values = st.recursive(
    short,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
lists = st.lists(st.text(max_size=300), max_size=34) | st.lists(short, max_size=20)
names = st.sampled_from(
    ["op", "id", "input", "query", "documents", "model", "truncate", "priority", "precision"]
)
messages = st.dictionaries(names | st.text(max_size=4), values | lists, max_size=8).flatmap(
    lambda message: st.fixed_dictionaries(
        {},
        optional={
            "id": st.just(1),
            "op": st.sampled_from(["embed", "rerank", "ping", "hello", "cancel"]),
            "input": lists,
            "documents": lists,
            "query": st.text(max_size=300),
        },
    ).map(lambda known: {**message, **known})
)


@given(messages, st.lists(damage, max_size=2))
@example({"id": 1, "op": "ping", "x": [[] for _ in range(17)]}, [])
@example({"id": 1, "op": "ping", "x": [[] for _ in range(15)]}, [])
@example({"id": 1, "op": "ping", "x": {"a": 1, b"b": [1], "c": {"d": None}}}, [])
@example({"id": 1, "op": "ping", "x": [{1: "a"}]}, [])
@example({"id": 1, "op": "embed", "input": [""] * 32}, [])
@example({"id": 1, "op": "embed", "input": [""] * 33}, [])
@example({"id": 1, "op": "embed", "input": ["猫" * 200, 1, None, b"", "a", "a", "a", "a"]}, [])
@FUZZ
def test_a_request_means_what_msgpack_says(
    message: dict[Any, Any], injuries: list[tuple[float, int, bytes]]
) -> None:
    """Any bytes give the same request, or kind of refusal, as with msgpack's own unpacker."""
    body, _ = damaged(msgpack.packb(message), injuries)
    if len(body) > LIMITS.max_frame_bytes:
        return
    (received,) = read(opened(), framed(body))
    assert repr(kind(received)) == repr(kind(plainly(body, LIMITS)))


@given(messages, st.lists(damage, max_size=1))
@FUZZ
def test_where_the_steps_end_makes_no_difference(
    message: dict[Any, Any], injuries: list[tuple[float, int, bytes]]
) -> None:
    """Steps of a value or two, and pieces that end within texts, give the same result."""
    body, _ = damaged(msgpack.packb(message), injuries)
    if len(body) > LIMITS.max_frame_bytes:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client_lib.wire.walk.VALUE_WORK", 20)
        patch.setattr("client_lib.wire.walk.STEP_BYTES", 40)
        patch.setattr("client_lib.wire.walk.PIECE_BYTES", 90)
        (received,) = read(opened(), framed(body))
    assert repr(kind(received)) == repr(kind(plainly(body, LIMITS)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends too soon"),
        (b"\x90", "is not a map but: list"),
        (b"\xc1", "is not a map but: unassigned code"),
        (b"\x80\x80", "bytes follow its map"),
        (b"\x81\x01\x02", "a key that is not a string"),
        (b"\x81\xda\x10\x01" + b"k" * 4097 + b"\x01", "a key of 4097 bytes; the limit is 4096"),
        (b"\x81\xa1a\xdc\x00", "ends too soon"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "a list of 4294967295; the limit is 32"),
        (b"\xdf\xff\xff\xff\xff", "a map of 4294967295; the limit is 1024"),
        (b"\x81\xa1a\x81\x90\xc0", "a key that is neither text nor binary"),
        (b"\x81\xa1a\xd4\x00\x00", "contains an extension"),
        (b"\x81\xa1a\xc7\x00\x05", "contains an extension"),
        (b"\x81\xa1a\xc1", "contains an unassigned code"),
        (b"\x81\xa1a\xa2\xff\xff", "'utf-8' codec can't decode"),
        (b"\x81\xa1a" + b"\x91" * 64 + b"\xc0", "more than 16 lists and maps"),
        (b"\x81\xa1a" + b"\xdc\x00\x20" * 16, "more than 16 lists and maps"),
    ],
)
def test_what_is_wrong_with_a_frame_is_said(body: bytes, message: str) -> None:
    """Every fault of a frame is fatal and named in one line."""
    (refused,) = read(opened(), framed(body))
    assert isinstance(refused, Refused)
    assert refused.fatal
    assert message in refused.error.message


NUMBERS = [0, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**64 - 1]
SIGNED = [-1, -32, -33, -128, -129, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63)]
SIZES = [0, 1, 15, 16, 31, 32, 255, 256, 2**16 - 1, 2**16]


def finished(steps_: Steps[dict[str, Any]]) -> dict[str, Any]:
    while True:
        try:
            next(steps_)
        except StopIteration as end:
            return cast("dict[str, Any]", end.value)


def test_every_kind_of_value_is_read_or_stepped_over() -> None:
    """Every kind of value, at the edges of each width, is read or skipped; the rest is intact."""
    plain = [None, True, False, 1.5, *NUMBERS, *SIGNED, *("x" * size for size in SIZES)]
    lists = [["x"] * size for size in SIZES[:8]]
    passed: list[Any] = [*(b"x" * size for size in SIZES), {}]
    passed += [{str(i): i for i in range(size)} for size in (15, 16, 1_024)]
    passed += [[b"x" * size] * 2 for size in SIZES[:8]] + [[1, ["a"] * size] for size in SIZES[:8]]
    for single in (False, True):
        for value in [*plain, *lists, *passed]:
            message = {"before": 1, "x": value, "after": ["y", "z"]}
            decoder = RequestDecoder(2**24, LARGE.shape())
            decoder.feed(framed(msgpack.packb(message, use_single_float=single)))
            read = finished(decoder.take())
            x = read.pop("x")
            assert read == {"before": 1, "after": ["y", "z"]}, repr(value)[:50]
            kinds = {bytes: "binary", dict: "map", list: "list"}
            skipped = any(value is each for each in passed)
            expected = Unread(kinds[type(value)]) if skipped else value
            assert x == expected, repr(value)[:50]
            assert type(x) is type(expected)


@pytest.mark.parametrize(
    ("message", "more", "error"),
    [
        ({"k" * 4_096: 1}, {"k" * 4_097: 1}, "a key of 4097 bytes; the limit is 4096"),
        ({"é" * 2_048: 1}, {"é" * 2_048 + "e": 1}, "a key of 4097 bytes"),
        ({"x": ["a"] * 32}, {"x": ["a"] * 33}, "a list of 33; the limit is 32"),
        ({"x": {str(i): 1 for i in range(1_024)}}, {"x": {str(i): 1 for i in range(1_025)}},
         "a map of 1025; the limit is 1024"),
        ({str(i): 1 for i in range(1_022)}, {str(i): 1 for i in range(1_023)}, "a map of 1025"),
        ({"x": [[]] * 14}, {"x": [[]] * 15}, "more than 16 lists and maps"),
        ({"x": [{}] * 14}, {"x": [{}] * 15}, "more than 16 lists and maps"),
        ({str(i): [] for i in range(15)}, {str(i): [] for i in range(16)}, "more than 16 lists"),
        # 32 + 4 * 1,024 values, counting both keys and values of maps, the frame's included
        ({"x": {str(i): 1 for i in range(1_000)}, "y": {str(i): 1 for i in range(1_000)},
          "z": [1] * 32, "a": [1] * 32, "b": [1] * 32, "c": [1] * 16},
         {"x": {str(i): 1 for i in range(1_000)}, "y": {str(i): 1 for i in range(1_000)},
          "z": [1] * 32, "a": [1] * 32, "b": [1] * 32, "c": [1] * 17},
         "more than 4128 values"),
    ],
    ids=["key", "key in UTF-8", "list", "map", "fields", "lists", "maps", "empty lists", "values"],
)  # fmt: skip
def test_a_frame_may_have_so_much_and_no_more(
    message: dict[str, Any], more: dict[str, Any], error: str
) -> None:
    """A frame at each limit is accepted, and one above it is refused."""
    ping = {"op": "ping", "id": 1}
    assert read(opened(), encode({**ping, **message})) == [Ping(id=1)]
    (refused,) = read(opened(), encode({**ping, **more}))
    assert isinstance(refused, Refused)
    assert error in refused.error.message


def test_values_are_counted_in_all() -> None:
    """Lists within their own limit can together exceed the limit on values."""
    most = Limits(max_inputs=1000)
    message = {"op": "ping", "id": 1, "a": [1] * 8000, "b": [1] * 4000, "c": [1] * 90}
    (refused,) = read(opened(most), encode(message))
    assert isinstance(refused, Refused)
    assert "more than 12096 values" in refused.error.message
    assert read(opened(most), encode({**message, "c": [1] * 20})) == [Ping(id=1)]


# Steps.


def steps(connection: ServerConnection, data: bytes) -> int:
    return sum(1 for received in walking(connection, data) if received is None)


EMBED = {"op": "embed", "id": 1}


@pytest.mark.parametrize(
    "message",
    [
        {**EMBED, "input": ["x" * 8_000] * 2_000},
        {**EMBED, "input": ["é" * 80_000] * 100},
        {**EMBED, "input": ["x"] * 16_000},
        {**EMBED, "input": ["x"] * 10_000 + [1] + ["x"] * 2_000},
        {**EMBED, "input": [["x"] * 8_000, ["x"] * 8_000]},
        {**EMBED, **{f"{i}": "x" * 16_000 for i in range(900)}},
        {"op": "ping", "id": 1, "x": {f"{i}": i for i in range(1_000)}, "y": [1] * 15_000},
    ],
    ids=["long", "longer", "many", "not texts", "nested", "fields", "map"],
)
def test_a_long_frame_takes_many_steps(message: dict[str, Any]) -> None:
    """A long frame takes a step per 256 KiB or thousand values, so others get their turns."""
    body = msgpack.packb(message)
    lists = [value for value in message.values() if isinstance(value, list)]
    work = len(body) + VALUE_WORK * sum(map(len, lists))
    assert steps(opened(LARGE), framed(body)) >= work // (2 * STEP_BYTES)


def test_no_step_builds_more_than_its_work() -> None:
    """Memory grows by at most one step's texts, or one longer text, at a time."""
    decoder = RequestDecoder(2**24, LARGE.shape())
    texts = [("x" * 500 + "😀") * 60] * 150 + ["x" * 2**20] * 3
    decoder.feed(encode({**EMBED, "input": texts}))
    steps_ = decoder.take()
    held = [reachable(decoder, steps_) for step in steps_ if step is None]
    assert len(held) > 20
    assert max(b - a for a, b in pairwise(held)) < 4 * STEP_BYTES + 2**20 + 2**16


def test_many_frames_take_steps_too() -> None:
    """Thousands of short frames in one piece are decoded in several steps."""
    frames = b"".join(encode({"op": "ping", "id": i}) for i in range(3000))
    received = list(walking(opened(), frames))
    assert received.count(None) > 50
    assert [each for each in received if each] == [Ping(id=i) for i in range(3000)]


def test_a_frame_of_nested_lists_reserves_nothing() -> None:
    """Lists are not allocated at their claimed length, with which 19 kB could reserve 68 MB."""
    body = b"\x81\xa1a" + b"\xdc\x40\x00" * 6_400
    connection = opened(LARGE)
    tracemalloc.start()
    try:
        (refused,) = read(connection, framed(body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(refused, Refused)
    assert peak < 4 * len(body) + _OBJECTS + sys.getsizeof(msgpack.Unpacker(read_size=1))


def test_an_iterator_that_is_left_keeps_nothing_and_spoils_nothing() -> None:
    """Abandoning an iterator discards its frame only; the next one continues after it."""
    connection = opened(LARGE)
    idle = reachable(connection)
    connection.feed(encode({**EMBED, "input": ["x" * 8_000] * 200}))
    connection.feed(encode({"op": "ping", "id": 2}))
    walk = connection.take()
    assert next(walk) is None
    assert reachable(connection, walk) > idle + 1_600_000
    del walk
    assert reachable(connection) < idle + 1_000
    assert read(connection, encode({"op": "ping", "id": 3})) == [Ping(id=2), Ping(id=3)]


def test_an_iterator_that_is_kept_spoils_nothing() -> None:
    """Two iterators in progress decode their own frames independently."""
    connection = opened(LARGE)
    large = encode({**EMBED, "input": ["x" * 8_000] * 200})
    left, other = walking(connection, large), walking(connection, encode({"op": "ping", "id": 3}))
    assert next(left) is None
    assert list(other) == [Ping(id=3)]
    assert isinstance(next(filter(None, left)), Embed)


def test_a_request_that_was_yielded_is_the_caller_s() -> None:
    """A yielded request is not kept alive by the connection, nor is its frame."""
    connection = opened(LARGE)
    idle = reachable(connection)
    connection.feed(encode({**EMBED, "input": ["x" * 8_000] * 200}))
    walk = connection.take()
    assert isinstance(next(filter(None, walk)), Embed)
    assert reachable(connection, walk) < idle + 8_000
    assert next(walk, None) is None


# Memory.


def feeding(
    connection: ServerConnection, pieces: list[bytes]
) -> Iterator[tuple[int, Received | None]]:
    """Yield, at every step, the reachable memory and what was received."""
    for piece in pieces:
        walk = walking(connection, piece)
        for received in walk:
            yield reachable(connection, walk) - sys.getsizeof(piece), received
        yield reachable(connection), None


_OBJECTS = 16 * 1024  # the connection itself, its limits, the iterators and their frames
# For short frames: the start of one and the piece fed after it, in a buffer over-allocated by an
# eighth; and msgpack's unpacker without its buffer.
_BUFFERS = 208 * 1024


def most(connection: ServerConnection, length: int) -> int:
    """Return the most memory that receiving and decoding a frame of `length` may take."""
    return _BUFFERS + length + connection.most_decoding(length)


@given(
    messages,
    st.lists(damage, max_size=1),
    st.lists(st.floats(0, 1), max_size=4),
    st.integers(-50, 2**24),
    st.integers(0, 1500),
)
@settings(FUZZ, max_examples=max(20, FUZZ.max_examples // 10))
def test_what_is_held_is_bounded(
    message: dict[Any, Any],
    injuries: list[tuple[float, int, bytes]],
    cuts: list[float],
    lie: int,
    more: int,
) -> None:
    """Memory stays within the bound at every step, whatever the pieces contain or claim."""
    message = {**message, "x": ["a😀" * 20] * more, "y": ["z"] * more}
    body, _ = damaged(msgpack.packb(message), injuries)
    length = max(0, len(body) + lie if lie < 0 or lie % 2 else len(body))
    data = length.to_bytes(HEADER_BYTES, "big") + body
    places = sorted({*(round(cut * len(data)) for cut in cuts), 0, len(data)})
    places = sorted({*places, *range(0, len(data), LONG_FRAME_BYTES)})
    connection = opened(LARGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client_lib.wire.walk.STEP_BYTES", 16 * 1024)
        for real, received in feeding(connection, [data[a:b] for a, b in pairwise(places)]):
            assert real <= most(connection, length) + _OBJECTS
            if isinstance(received, Refused) and received.fatal:
                break


WIDE = "x" * (2**20 - 4) + "😀"
HEAVY = {
    "one emoji makes all of a text wide": {**EMBED, "input": [WIDE] * 12},
    "many texts of two bytes": {**EMBED, "input": ["ā"] * 131_072},
    "many wide texts": {**EMBED, "input": ["x" * 200 + "😀"] * 16_384},
    "many empty texts": {**EMBED, "input": [""] * 16_384},
    "numbers": {**EMBED, "input": [2**62] * 16_384},
    "fields": {**EMBED, **{f"{i}😀": f"{i}😀" for i in range(1_000)}},
    "binary": {**EMBED, "x": bytes(4 * 2**20)},
    "texts that are too long": {**EMBED, "input": ["x" * (2**20 + 1)] * 4},
    "a text among numbers": {**EMBED, "input": [WIDE, *range(10_000)]},
    "nested": {**EMBED, "input": [["x" * 100] * 8_000, ["y"] * 8_000]},
}


@pytest.mark.parametrize("message", HEAVY.values(), ids=HEAVY)
def test_memory_stays_within_what_is_told(message: dict[str, Any]) -> None:
    """The allocated memory, the request included, stays within the announced bound."""
    data = encode(message)
    pieces = [data[a : a + LONG_FRAME_BYTES] for a in range(0, len(data), LONG_FRAME_BYTES)]
    connection = opened(Limits(max_inputs=max(2_048, len(message.get("input", ())) // 8)))
    tracemalloc.start()
    try:
        for piece in pieces:
            for _ in walking(connection, piece):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= most(connection, len(data) - HEADER_BYTES)


# Long texts.

SMALL = Limits(max_text_bytes=1_024)


def refusal(message: dict[str, Any], limits: Limits = SMALL) -> Refused:
    (refused,) = read(opened(limits), encode({"id": 1, **message}))
    assert isinstance(refused, Refused)
    return refused


@pytest.mark.parametrize("before", [0, 3, 100])
def test_a_text_over_the_limit_is_named_and_measured(before: int) -> None:
    """A text over the limit fails its request only, with its index, its size and advice."""
    texts = ["a"] * before + ["é" * 512, "é" * 513, "b"]
    refused = refusal({"op": "embed", "input": texts})
    assert (refused.id, type(refused.error), refused.fatal) == (1, TooLarge, False)
    assert refused.error.index == before + 1
    assert refused.error.message == (
        f"embed: text {before + 1} of field 'input' is 1026 bytes; the limit for one text is 1024 "
        "(SIDECAR_MAX_TEXT_BYTES): models read at most a few thousand tokens, so truncate or "
        "split it"
    )


def test_a_text_of_the_limit_passes() -> None:
    """A text of exactly the limit in bytes is accepted."""
    texts = ("é" * 512, "x" * 1_024)
    (request,) = read(opened(SMALL), encode({"op": "embed", "id": 1, "input": texts}))
    assert request == Embed(id=1, input=texts)


def test_a_query_over_the_limit_has_no_index() -> None:
    """A query over the limit is refused without an index."""
    refused = refusal({"op": "rerank", "query": "q" * 1_025, "documents": ["a"]})
    assert type(refused.error) is TooLarge
    assert refused.error.index is None
    assert "rerank: field 'query' is 1025 bytes" in refused.error.message


def test_a_document_over_the_limit_has_its_index() -> None:
    """A document over the limit is refused with its index."""
    refused = refusal({"op": "rerank", "query": "q", "documents": ["a", "x" * 1_025]})
    assert (type(refused.error), refused.error.index) == (TooLarge, 1)


@pytest.mark.parametrize(
    ("field", "value"), [("model", "m" * 2_000), ("input", ["x" * 2_000, 1]), ("role", "r" * 2_000)]
)
def test_what_is_no_text_at_all_is_not_too_long(field: str, value: Any) -> None:
    """A long value in a field of another type is a `BadRequest`, not too large."""
    refused = refusal({"op": "embed", "input": ["a"], field: value})
    assert type(refused.error) is BadRequest
    assert f"field '{field}' must be" in refused.error.message


def test_a_long_text_that_nobody_knows_is_ignored() -> None:
    """A long text in an unknown field is ignored."""
    data = encode({"op": "ping", "id": 1, "x": "x" * 2_000, "y": ["x" * 2_000]})
    assert read(opened(SMALL), data) == [Ping(id=1)]


def test_a_long_text_is_not_decoded() -> None:
    """A text over the limit is skipped, and only its size is kept."""
    decoder = RequestDecoder(2**20, SMALL.shape())
    decoder.feed(encode({"x": "x" * 2_000}))
    with pytest.raises(StopIteration) as taken:
        next(decoder.take())
    assert taken.value.value == {"x": LongText(2_000, 1_024)}
