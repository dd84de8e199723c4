"""Fuzzing of the daemon's side of the protocol.

It takes a moment with the other tests, and minutes with `--hypothesis-profile=minutes`. Hypothesis
prints a failing input and tries it first in the next run.
"""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from client_lib.wire.codec import encode
from client_lib.wire.errors import BadRequest, TooLarge
from client_lib.wire.frames import HEADER_BYTES
from client_lib.wire.messages import (
    Cancel,
    Embed,
    Hello,
    Ping,
    Request,
    Rerank,
    Status,
    request_to_map,
)
from client_lib.wire.protocol import VERSION, Limits, Received, Refused, ServerConnection

FUZZ = settings(max_examples=2 * settings().max_examples)

LIMITS = Limits(max_frame_bytes=512, max_inputs=4, max_text_bytes=64)
HELLO = Hello(id=0, version=VERSION)

texts = st.lists(st.text(max_size=12), min_size=1, max_size=LIMITS.max_inputs).map(tuple)
details = st.fixed_dictionaries(
    {},
    optional={
        "model": st.none() | st.text(max_size=8),
        "truncate": st.booleans(),
        "priority": st.sampled_from(["interactive", "bulk"]),
        "timeout_ms": st.none() | st.integers(1, 2**40),
    },
)
bodies = st.one_of(
    st.builds(lambda input_, more: (Embed, {"input": input_, **more}), texts, details),
    st.builds(
        lambda query, documents, more: (Rerank, {"query": query, "documents": documents, **more}),
        st.text(max_size=12), texts, details,
    ),
    st.builds(lambda target: (Cancel, {"target": target}), st.integers(0, 2**63 - 1)),
    st.sampled_from([(Ping, {}), (Status, {})]),
)  # fmt: skip
# Ids are 1, 2, 3, ...: requests must be valid without any reply freeing an id.
requests = st.lists(bodies, max_size=8).map(
    lambda parts: [HELLO, *(cls(id=i, **rest) for i, (cls, rest) in enumerate(parts, start=1))]
)

harmful = st.sampled_from(
    [
        b"\xff\xff\xff\xff", b"\x00\x00\x02\x01", b"\x00\x00\x00\x00", b"\x00\x00\x00\x01\xc1",
        b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xdc\x00\x20" * 20, b"\x98" + b"\xa1a" * 8, b"\xd9\x41" + b"a" * 65,
        b"\x91" * 64, b"\x81\xa1a" * 64, b"\xd4\xff\x00", b"\xd7\xff" + b"\xff" * 8,
        encode({"op": "ping", "id": -1}), encode({"op": "ping", "id": 1}), encode({"id": 9}),
    ]
)  # fmt: skip
damage = st.tuples(
    st.floats(0, 1),  # position in the stream
    st.integers(0, 16),  # number of bytes removed
    st.binary(max_size=16) | harmful,  # bytes inserted instead
)


def damaged(stream: bytes, injuries: Sequence[tuple[float, int, bytes]]) -> tuple[bytes, int]:
    """Return `stream` with all injuries, and how many of its first bytes are intact."""
    whole = len(stream)
    for where, gone, new in injuries:
        at = round(where * len(stream))
        whole = min(whole, at)
        stream = stream[:at] + new + stream[at + gone :]
    return stream, whole


def split(stream: bytes, cuts: Sequence[float]) -> list[bytes]:
    places = [0, *sorted(round(cut * len(stream)) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(places)]


def received(pieces: Sequence[bytes]) -> list[Received]:
    """Return what a daemon decodes from `pieces`, and check the invariants for any input."""
    connection = ServerConnection(LIMITS)
    seen: list[Received] = []
    for piece in pieces:
        alive = not (seen and isinstance(seen[-1], Refused) and seen[-1].fatal)
        new = [each for each in connection.receive(piece) if each is not None]
        assert alive or not new, "something was accepted after a fatal error"
        if alive:
            kept = connection._decoder.buffered
            fatal = bool(new) and isinstance(new[-1], Refused) and new[-1].fatal
            assert kept < HEADER_BYTES + LIMITS.max_frame_bytes or fatal, (
                "more than one frame is buffered"
            )
        seen += new
    for item in seen:
        if isinstance(item, Refused):
            assert isinstance(item.error, BadRequest | TooLarge) or item.error.code == (
                "unsupported_version"
            )
            assert item.fatal or item.id is not None, "a refusal that cannot be answered"
            # The refusal can be encoded, under its id if there is one.
            assert connection.fail(item.id, item.error)
    ids = [item.id for item in seen if not isinstance(item, Refused)]
    assert len(ids) == len(set(ids)), "two requests with the same id"
    return seen


@given(st.lists(st.binary(max_size=600) | harmful), st.booleans())
@FUZZ
def test_any_bytes_are_requests_or_refused(pieces: list[bytes], greeted: bool) -> None:
    """Arbitrary bytes, before or after hello, become requests or the protocol's own errors."""
    received([encode(request_to_map(HELLO))] * greeted + pieces)


@given(requests, st.lists(damage, min_size=1, max_size=4), st.lists(st.floats(0, 1), max_size=6))
@FUZZ
def test_what_was_whole_before_the_damage_is_delivered(
    sent: list[Request], injuries: list[tuple[float, int, bytes]], cuts: list[float]
) -> None:
    """Requests before the first damaged byte arrive unchanged, however the stream is split."""
    frames = [encode(request_to_map(request)) for request in sent]
    stream, whole = damaged(b"".join(frames), injuries)
    seen = received(split(stream, cuts))
    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    intact = sum(end <= whole for end in ends)
    assert seen[:intact] == sent[:intact]
    assert repr(seen) == repr(received([stream])), "the split made a difference"


@given(requests, st.binary(max_size=64), st.lists(st.floats(0, 1), max_size=6))
@FUZZ
def test_half_a_frame_is_waited_for(sent: list[Request], tail: bytes, cuts: list[float]) -> None:
    """Undamaged requests all arrive, and an incomplete frame is neither request nor error."""
    half = (len(tail) + 1).to_bytes(HEADER_BYTES, "big") + tail
    stream = b"".join(encode(request_to_map(request)) for request in sent) + half
    assert received(split(stream, cuts)) == sent
