"""Frames, byte by byte."""

import struct
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.codec import FrameDecoder, decode, encode
from client_lib.wire.errors import FrameTooLarge, ProtocolError
from client_lib.wire.frames import HEADER_BYTES

MESSAGES = [{"id": 1, "op": "ping"}, {}, {"id": 2, "data": b"\x00\xff" * 100, "text": "猫"}]
STREAM = b"".join(map(encode, MESSAGES))

json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def test_a_frame_is_a_length_and_a_map() -> None:
    """A frame is a 4-byte big-endian length and a msgpack map."""
    assert encode({"id": 1}) == b"\x00\x00\x00\x05\x81\xa2id\x01"


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_may_be_split_anywhere(cut: int) -> None:
    """A stream gives the same maps wherever it is split, even within a length field."""
    decoder = FrameDecoder(1024)
    maps = [*decoder.feed(STREAM[:cut]), *decoder.feed(STREAM[cut:])]
    assert maps == MESSAGES
    assert decoder.buffered == 0


def test_a_stream_may_come_byte_by_byte() -> None:
    """A map is yielded with its last byte and not before."""
    decoder = FrameDecoder(1024)
    counts = [len(list(decoder.feed(STREAM[i : i + 1]))) for i in range(len(STREAM))]
    ends = [len(encode(MESSAGES[0])), len(encode(MESSAGES[0])) + HEADER_BYTES + 1, len(STREAM)]
    assert [i + 1 for i, count in enumerate(counts) if count] == ends


def test_frames_may_come_joined() -> None:
    """One piece may contain several frames and the start of another."""
    decoder = FrameDecoder(1024)
    assert list(decoder.feed(STREAM + STREAM[:7])) == MESSAGES
    assert decoder.buffered == 7


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_feeds(kind: type) -> None:
    """bytes, bytearray and memoryview are all accepted."""
    assert list(FrameDecoder(1024).feed(kind(STREAM))) == MESSAGES


def test_a_frame_of_the_limit_passes_and_one_more_byte_does_not() -> None:
    """A body of exactly the limit passes, and one more byte does not."""
    frame = encode(MESSAGES[2])
    size = len(frame) - HEADER_BYTES
    assert list(FrameDecoder(size).feed(frame)) == [MESSAGES[2]]
    with pytest.raises(FrameTooLarge):
        list(FrameDecoder(size - 1).feed(frame))


def test_a_long_frame_is_refused_by_its_length_alone() -> None:
    """A frame over the limit is refused as soon as its length is known."""
    with pytest.raises(FrameTooLarge, match="4294967295 bytes exceeds the limit of 16"):
        list(FrameDecoder(16).feed(b"\xff\xff\xff\xff"))


def test_what_came_before_a_bad_frame_is_yielded() -> None:
    """Valid frames before an invalid one are yielded."""
    seen: list[dict[str, object]] = []
    with pytest.raises(ProtocolError):
        seen.extend(FrameDecoder(1024).feed(STREAM + framed(b"\xc1")))
    assert seen == MESSAGES


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",  # never used in msgpack
        b"\x81",  # a map that ends too soon
        b"\x80\x80",  # two maps
        b"\x93\x01\x02\x03",  # a list
        b"\x01",
        b"\xc0",
        b"\xa1a",
        b"\x81\x01\x02",  # an integer as key
        b"\x81\xc4\x01a\x02",  # bytes as key
        b"\x81\x90\x02",  # a list as key
        b"\x81\xc0\x02",  # nil as key
        b"\x81\xa2\xff\xfe\x01",  # a key that is not UTF-8
        b"\x81\xa1a\xa2\xff\xfe",  # a value that is not UTF-8
        b"\x81\xa1a\xd4\x05\x00",  # an extension
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x01",  # a timestamp
        b"\x81\xa1a\xd4\xff\x00",  # a timestamp of an impossible length
        b"\x81\xa1a\xd7\xff" + b"\xff" * 8,  # a timestamp beyond its range
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1
        b"\x81\xa1a\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1
        b"\x81\xa1a\xc6\xff\xff\xff\xff",  # bytes of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a" * 2000 + b"\xc0",  # nested too deep
        b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0",
    ],
)
def test_what_is_not_one_map_with_string_keys_is_refused(body: bytes) -> None:
    """Any body but a single map with string keys is a `ProtocolError`."""
    with pytest.raises(ProtocolError):
        decode(body)


def test_nested_lists_cannot_claim_more_than_their_frame_holds() -> None:
    """A list cannot claim more elements than its frame has bytes, so 3 KB cannot reserve 512 MB."""
    with pytest.raises(ProtocolError, match="65535 exceeds"):
        decode(b"\x81\xa1a" + b"\xdc\xff\xff" * 1000)


@given(st.dictionaries(st.text(), json_like, max_size=4))
def test_any_map_survives(message: dict[str, object]) -> None:
    """Any map survives encoding and decoding."""
    assert list(FrameDecoder(2**24).feed(encode(message))) == [message]


@given(st.binary())
def test_any_body_is_a_map_or_a_protocol_error(body: bytes) -> None:
    """Arbitrary bytes decode to a map or raise `ProtocolError`."""
    with suppress(ProtocolError):
        assert isinstance(decode(body), dict)


def test_bytes_and_text_stay_apart() -> None:
    """msgpack's bin decodes to bytes, and str to str."""
    body = msgpack.packb({"b": b"x", "s": "x"})
    assert decode(body) == {"b": b"x", "s": "x"}
