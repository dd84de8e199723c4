"""Bodies out of a stream, and the memory that they are collected in."""

import sys

import pytest

from client_lib.wire.errors import FrameTooLarge
from client_lib.wire.frames import HEADER_BYTES, LONG_FRAME_BYTES, Frames, framed

LONG = bytes(range(256)) * 1_000
EMPTY = sys.getsizeof(bytearray())


def capacity(frames: Frames) -> int:
    """Return the bytes that are held for frames, whether filled or not."""
    return sys.getsizeof(frames._buffer) + len(frames._long or b"")


def taken(frames: Frames) -> list[bytes]:
    bodies = []
    while frames.whole is not None:
        bodies.append(bytes(frames.take()))
    return bodies


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1_000, LONG_FRAME_BYTES, len(LONG), 10**6])
def test_long_and_short_bodies_come_whole_and_in_order(size: int) -> None:
    """However they were cut, and joined."""
    sent = [b"a", LONG, b"", b"b" * 100, LONG[1:], LONG[:LONG_FRAME_BYTES], b"c"]
    stream = b"".join(map(framed, sent))
    frames = Frames(2**20)
    found = []
    for at in range(0, len(stream), size):
        frames.feed(stream[at : at + size])
        found += taken(frames)
    assert found == sent
    assert (frames.buffered, frames.pending) == (0, 0)


def test_a_long_body_has_its_memory_at_the_second_piece() -> None:
    """All of it, once; the first piece takes its own size, so that room can be found between."""
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
    """Whatever its length is said to be."""
    frames = Frames(2**20)
    frames.feed(LONG_FRAME_BYTES.to_bytes(HEADER_BYTES, "big") + b"x")
    frames.feed(b"y")
    assert capacity(frames) < EMPTY + 64


def test_a_length_over_the_limit_has_no_memory() -> None:
    """Also where somebody goes on feeding."""
    frames = Frames(2**20)
    frames.feed((2**20 + 1).to_bytes(HEADER_BYTES, "big") + b"x")
    frames.feed(b"y")
    assert capacity(frames) < EMPTY + 64
    with pytest.raises(FrameTooLarge, match="1048577 bytes is over the limit of 1048576"):
        frames.take()


def test_what_was_taken_is_nobody_else_s() -> None:
    """The stream goes on in memory of its own."""
    frames = Frames(2**20)
    frames.feed(framed(LONG) + b"\0")
    body = frames.take()
    frames.feed(framed(b"x" * 300)[1:])
    assert bytes(body) == LONG
    assert taken(frames) == [b"x" * 300]
