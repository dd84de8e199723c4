"""Splitting a stream into bodies, and the memory that holds them."""

import sys
from itertools import accumulate

import pytest

from client_lib.wire.errors import FrameTooLarge
from client_lib.wire.frames import HEADER_BYTES, LONG_FRAME_BYTES, Frames, framed

LONG = bytes(range(256)) * 1_000
EMPTY = sys.getsizeof(bytearray())


def capacity(frames: Frames) -> int:
    """Return the bytes allocated for frames, filled or not."""
    return sys.getsizeof(frames._buffer) + len(frames._long or b"")


def taken(frames: Frames) -> list[bytes]:
    bodies = []
    while frames.whole is not None:
        bodies.append(bytes(frames.take()))
    return bodies


def check_pieces(sent: list[bytes], size: int) -> None:
    """Feed frames in pieces of `size`, checking `buffered`, `missing` and `pending` at each."""
    stream = b"".join(map(framed, sent))
    ends = list(accumulate(HEADER_BYTES + len(body) for body in sent))
    frames = Frames(max(map(len, sent)))
    found: list[bytes] = []
    for at in range(0, len(stream), size):
        frames.feed(stream[at : at + size])
        fed = min(at + size, len(stream))
        assert frames.buffered == fed - [0, *ends][len(found)], (size, at)
        found += taken(frames)
        begun, end = ([0, *ends][len(found)], [*ends, fed][len(found)])
        assert frames.buffered == fed - begun, (size, at)
        known = fed - begun >= HEADER_BYTES
        assert frames.missing == (end - fed if known else 0), (size, at)
        assert frames.pending == (end - begun - HEADER_BYTES if known else 0), (size, at)
    assert found == sent


@pytest.mark.parametrize("size", [1_000, LONG_FRAME_BYTES, len(LONG), 10**6])
def test_long_and_short_bodies_come_whole_and_in_order(size: int) -> None:
    """Long and short bodies arrive complete and in order, however the stream is split."""
    check_pieces([b"a", LONG, b"", b"b" * 100, LONG[1:], LONG[:LONG_FRAME_BYTES], b"c"], size)


def test_bodies_come_whole_wherever_the_cuts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies arrive complete wherever the stream is split, even within a length field."""
    monkeypatch.setattr("client_lib.wire.frames.LONG_FRAME_BYTES", 16)
    sent = [b"a", LONG[:90], b"", LONG[1:12], LONG[2:14], LONG[3:15], LONG[:17], LONG[:16], b"c"]
    for size in range(1, 80):
        check_pieces(sent, size)


def test_a_long_body_has_its_memory_at_the_second_piece() -> None:
    """A long body's memory is allocated once, at its second piece; the first takes its size."""
    frames = Frames(2**20)
    frames.feed(framed(LONG)[:1_000])
    assert frames.pending == len(LONG)
    assert capacity(frames) < EMPTY + 1_200
    frames.feed(b"")
    assert capacity(frames) == EMPTY + len(LONG)
    frames.feed(LONG[1_000 - HEADER_BYTES :])
    assert capacity(frames) == EMPTY + len(LONG)
    assert taken(frames) == [LONG]
    assert capacity(frames) == EMPTY


def test_a_short_body_takes_what_has_come() -> None:
    """A short body takes only as much memory as has arrived."""
    frames = Frames(2**20)
    frames.feed(LONG_FRAME_BYTES.to_bytes(HEADER_BYTES, "big") + b"x")
    frames.feed(b"y")
    assert capacity(frames) < EMPTY + 64


def test_a_length_over_the_limit_has_no_memory() -> None:
    """A body over the limit gets no memory, even if more data is fed."""
    frames = Frames(2**20)
    frames.feed((2**20 + 1).to_bytes(HEADER_BYTES, "big") + b"x")
    frames.feed(b"y")
    assert capacity(frames) < EMPTY + 64
    with pytest.raises(FrameTooLarge, match="1048577 bytes exceeds the limit of 1048576"):
        frames.take()


def test_what_was_taken_is_nobody_else_s() -> None:
    """A taken body keeps its bytes while the stream goes on in other memory."""
    frames = Frames(2**20)
    frames.feed(framed(LONG) + b"\0")
    body = frames.take()
    frames.feed(framed(b"x" * 300)[1:])
    assert bytes(body) == LONG
    assert taken(frames) == [b"x" * 300]
