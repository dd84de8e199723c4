"""Both ends of a connection, without I/O."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.codec import encode
from client_lib.wire.errors import (
    BackendFailed,
    BadRequest,
    FrameTooLarge,
    Overloaded,
    ProtocolError,
    ReplyError,
    TooLarge,
    UnsupportedVersion,
    error_from_map,
)
from client_lib.wire.messages import Cancel, Embed, Hello, Ping, Rerank, request_to_map
from client_lib.wire.protocol import (
    VERSION,
    ClientConnection,
    Limits,
    Refused,
    Reply,
    ServerConnection,
)

HELLO = encode(request_to_map(Hello(id=0, version=VERSION)))


def ping(request_id: Any) -> bytes:
    return encode({"op": "ping", "id": request_id})


def opened(limits: Limits | None = None) -> ServerConnection:
    connection = ServerConnection(limits or Limits())
    assert list(connection.receive(HELLO)) == [Hello(id=0, version=VERSION)]
    connection.reply(0)
    return connection


def refused(connection: ServerConnection, data: bytes) -> Refused:
    (received,) = connection.receive(data)
    assert isinstance(received, Refused)
    return received


# The daemon's end.


def test_requests_may_follow_hello_without_waiting() -> None:
    """Requests sent right behind hello are accepted in order."""
    received = list(ServerConnection(Limits()).receive(HELLO + ping(1) + ping(2)))
    assert received == [Hello(id=0, version=VERSION), Ping(id=1), Ping(id=2)]


@pytest.mark.parametrize("first", [ping(1), encode({"id": 1, "op": "nonsense"})])
def test_the_first_frame_must_be_hello(first: bytes) -> None:
    """Any other first frame ends the connection with an error under its own id."""
    connection = ServerConnection(Limits())
    answer = refused(connection, first + ping(2))
    assert (answer.id, type(answer.error), answer.fatal) == (1, BadRequest, True)
    assert list(connection.receive(HELLO)) == []


def test_another_version_is_refused() -> None:
    """An unsupported version is fatal, and the error names the supported one."""
    hello = encode(request_to_map(Hello(id=5, version=VERSION + 1)))
    answer = refused(ServerConnection(Limits()), hello)
    assert (answer.id, type(answer.error), answer.fatal) == (5, UnsupportedVersion, True)
    assert f"only {VERSION} is" in answer.error.message


def test_hello_is_said_once() -> None:
    """A second hello is refused, and the connection stays open."""
    connection = opened()
    answer = refused(connection, HELLO)
    assert (type(answer.error), answer.fatal) == (BadRequest, False)
    assert list(connection.receive(ping(1))) == [Ping(id=1)]


@pytest.mark.parametrize("bad", [None, -1, True, 2**63, "1", 1.5, [1]])
def test_a_frame_without_an_id_ends_the_connection(bad: Any) -> None:
    """An invalid id is fatal, since the frame cannot be answered."""
    connection = opened()
    answer = refused(connection, ping(bad))
    assert (answer.id, type(answer.error), answer.fatal) == (None, BadRequest, True)
    assert list(connection.receive(ping(1))) == []


def test_a_missing_id_ends_the_connection() -> None:
    """A missing id is fatal."""
    assert refused(opened(), encode({"op": "ping"})).fatal


def test_a_hundred_refusals_in_a_row_end_the_connection() -> None:
    """A hundred refusals in a row are fatal; any valid request resets the count."""
    connection = opened()
    wrong = (encode({"id": number, "op": "nonsense"}) for number in range(1, 300))
    for _ in range(99):
        (refused,) = connection.receive(next(wrong))
        assert isinstance(refused, Refused)
        assert not refused.fatal
    (request,) = connection.receive(encode({"id": 1000, "op": "ping"}))
    assert isinstance(request, Ping)
    *others, last = (item for _ in range(100) for item in connection.receive(next(wrong)))
    assert len(others) == 99
    assert isinstance(last, Refused)
    assert last.fatal
    assert last.error.message.startswith("100 frames in a row")


def test_an_id_in_flight_may_not_be_used_again() -> None:
    """Reusing an id in flight is fatal."""
    connection = opened()
    assert list(connection.receive(ping(1))) == [Ping(id=1)]
    answer = refused(connection, ping(1))
    assert (answer.id, answer.fatal) == (None, True)
    assert "still in flight" in answer.error.message


@pytest.mark.parametrize("error", [None, BackendFailed("no")])
def test_an_id_is_free_again_once_answered(error: ReplyError | None) -> None:
    """A reply or a failure frees its id."""
    connection = opened()
    list(connection.receive(ping(1)))
    connection.reply(1) if error is None else connection.fail(1, error)
    assert list(connection.receive(ping(1))) == [Ping(id=1)]


@pytest.mark.parametrize("message", [{"op": "nonsense"}, {"op": "embed"}, {"op": 1}, {}])
def test_a_bad_request_is_refused_and_the_next_is_taken(message: dict[str, Any]) -> None:
    """An invalid request with an id is refused, and the next one is accepted."""
    connection = opened()
    answer = refused(connection, encode({"id": 7, **message}))
    assert (answer.id, type(answer.error), answer.fatal) == (7, BadRequest, False)
    assert list(connection.receive(ping(7))) == [Ping(id=7)]


@pytest.mark.parametrize(
    "request_", [Embed(id=1, input=("a",) * 3), Rerank(id=1, query="q", documents=("a",) * 3)]
)
def test_too_many_texts_are_too_large(request_: Embed | Rerank) -> None:
    """A request with more texts than the limit is refused without ending the connection."""
    answer = refused(opened(Limits(max_inputs=2)), encode(request_to_map(request_)))
    assert (type(answer.error), answer.fatal) == (TooLarge, False)


@pytest.mark.parametrize(
    "request_", [Embed(id=1, input=("a",) * 2), Rerank(id=1, query="q", documents=("a",) * 2)]
)
def test_as_many_texts_as_are_allowed_are_taken(request_: Embed | Rerank) -> None:
    """Exactly as many texts as the limit are accepted, not counting the query."""
    data = encode(request_to_map(request_))
    assert list(opened(Limits(max_inputs=2)).receive(data)) == [request_]


def test_what_a_peer_has_to_send_is_known() -> None:
    """The peer owes hello at first, then the rest of a frame it began, and otherwise nothing."""
    connection = ServerConnection(Limits(max_frame_bytes=64))
    assert connection.awaited == "hello"
    connection.feed(HELLO[:-1])
    assert (connection.awaited, connection.whole, connection.missing) == ("hello", None, 1)
    connection.feed(HELLO[-1:])
    assert (connection.whole, connection.missing) == (len(HELLO) - 4, 0)
    assert [each for each in connection.take() if each] == [Hello(id=0, version=VERSION)]
    assert (connection.awaited, connection.whole, connection.buffered) == (None, None, 0)
    connection.feed(ping(1)[:6])
    assert (connection.awaited, connection.buffered) == ("the rest of a frame", 6)
    assert connection.missing == len(ping(1)) - 6
    assert list(connection.receive(ping(1)[6:])) == [Ping(id=1)]
    assert connection.awaited is None
    connection.feed((65).to_bytes(4, "big"))
    assert (connection.whole, connection.is_closed) == (0, False)
    (last,) = (each for each in connection.take() if each)
    assert isinstance(last, Refused)
    assert (last.fatal, connection.is_closed, connection.whole) == (True, True, None)
    connection.feed(ping(2))
    assert connection.whole is None


def test_what_a_frame_takes_is_known_from_its_length() -> None:
    """The memory bound is 4 bytes per byte, 160 per possible value, and three copies of a step."""
    limits = Limits(max_frame_bytes=2**24, max_inputs=100, max_text_bytes=2**18)
    for length in (0, 10, 1_000, 200_000, 2**24):
        values = min(length, 8 * 100 + 4 * 1_024)
        expected = 4 * length + 160 * values + 3 * min(length, 2**18)
        assert ServerConnection(limits).most_decoding(length) == expected
    small = ServerConnection(Limits(max_text_bytes=10))
    assert small.most_decoding(2**20) == 4 * 2**20 + 160 * (8 * 2_048 + 4_096) + 3 * 2**17


@pytest.mark.parametrize("request_", [{"op": "ping"}, {"op": "hello", "version": 2}])
def test_what_ends_a_connection_before_hello_ends_it(request_: dict[str, Any]) -> None:
    """After a fatal error before hello, nothing more is accepted."""
    connection = ServerConnection(Limits())
    (answer,) = connection.receive(encode({"id": 3, **request_}) + HELLO)
    assert isinstance(answer, Refused)
    assert (answer.id, answer.fatal, connection.is_closed) == (3, True, True)
    assert list(connection.receive(HELLO)) == []


def test_a_request_that_was_refused_has_no_id_in_flight() -> None:
    """A refused request, or a refused second hello, does not occupy its id."""
    connection = opened(Limits(max_inputs=1))
    for wrong in (HELLO, encode({"id": 0, "op": "embed", "input": ["a", "b"]})):
        assert refused(connection, wrong).id == 0
    assert list(connection.receive(ping(0))) == [Ping(id=0)]


def test_a_frame_over_the_limit_is_too_large_and_fatal() -> None:
    """A frame over the limit is refused by its length and ends the connection."""
    connection = opened(Limits(max_frame_bytes=64))
    answer = refused(connection, (65).to_bytes(4, "big"))
    assert (answer.id, type(answer.error), answer.fatal) == (None, TooLarge, True)


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", b"\x81\x01\x02", b"\xa2\xff\xff"])
def test_garbage_is_named_and_fatal(body: bytes) -> None:
    """A body that is not a valid map is a fatal `BadRequest` without an id."""
    connection = opened()
    answer = refused(connection, len(body).to_bytes(4, "big") + body + ping(1))
    assert (answer.id, type(answer.error), answer.fatal) == (None, BadRequest, True)
    assert list(connection.receive(ping(2))) == []


def test_cancel_names_its_target() -> None:
    """Cancel is a request with an id of its own and a target."""
    data = encode(request_to_map(Cancel(id=2, target=1)))
    assert list(opened().receive(data)) == [Cancel(id=2, target=1)]


pieces = st.binary(max_size=64) | st.sampled_from(
    [HELLO, HELLO[:6], HELLO[6:], ping(1), ping(2), ping(1)[:3], ping(-1), b"\0\0\0\1\x80"]
)


@given(st.lists(pieces))
def test_no_bytes_raise_and_nothing_follows_a_fatal(data: list[bytes]) -> None:
    """Arbitrary bytes become requests or refusals, and nothing follows a fatal one."""
    connection = ServerConnection(Limits(max_frame_bytes=256))
    received = [item for piece in data for item in connection.receive(piece)]
    fatal = [isinstance(item, Refused) and item.fatal for item in received]
    assert True not in fatal[:-1]


@given(st.lists(st.sampled_from([HELLO, ping(1), ping(2), ping(None)])), st.data())
def test_the_split_does_not_matter(frames: list[bytes], data: st.DataObject) -> None:
    """The same bytes give the same results, however they are split."""
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, split = ServerConnection(Limits()), ServerConnection(Limits())
    expected = [repr(item) for item in whole.receive(stream)]
    assert [repr(item) for part in parts for item in split.receive(part)] == expected


# The client's end.


def replies(data: bytes) -> list[Reply]:
    return list(ClientConnection().receive(data))


def test_replies_come_in_any_order() -> None:
    """Replies are matched by id and may arrive in any order."""
    server = opened()
    data = server.reply(2, x=1) + server.reply(1)
    assert [(reply.id, reply.error) for reply in replies(data)] == [(2, None), (1, None)]


KINDS = ReplyError.__subclasses__()


@pytest.mark.parametrize("cls", KINDS)
def test_every_code_survives_the_wire(cls: type[ReplyError]) -> None:
    """An error's class, message, index and retry_after_ms survive the wire, including zeros."""
    for index, retry_after_ms in ((4, 20.5), (0, 0), (None, 7), (3, None), (None, None)):
        sent = cls("why", index=index, retry_after_ms=retry_after_ms)
        (reply,) = replies(opened().fail(1, sent))
        error = reply.error
        assert type(error) is cls
        assert (error.message, error.index, error.retry_after_ms) == ("why", index, retry_after_ms)
        assert error.to_map() == sent.to_map()
        assert (sent.to_map()["code"], sent.to_map()["retryable"]) == (cls.code, cls.retryable)


def test_only_what_may_pass_is_retryable() -> None:
    """Only overload and draining are retryable."""
    assert {cls.code for cls in KINDS if cls.retryable} == {"overloaded", "draining"}
    assert len({cls.code for cls in KINDS}) == len(KINDS) == 10


def test_absent_details_do_not_travel() -> None:
    """`index` and `retry_after_ms` are sent only if they are set."""
    assert BadRequest("why").to_map() == {
        "code": "bad_request", "message": "why", "retryable": False,
    }  # fmt: skip


def test_a_code_from_the_future_keeps_what_it_says() -> None:
    """An unknown code becomes a plain `ReplyError` with its code, message and details."""
    error = error_from_map({"code": "moon_phase", "message": "wrong", "index": 2})
    assert type(error) is ReplyError
    assert str(error) == "moon_phase: wrong"
    assert error.index == 2


def test_an_error_without_an_id_fails_the_connection() -> None:
    """An error without an id is raised, after the replies before it."""
    server = opened()
    received = ClientConnection().receive(server.reply(1) + server.fail(None, Overloaded("full")))
    assert next(received).id == 1
    with pytest.raises(Overloaded, match="full"):
        next(received)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 1},
        {"id": None, "ok": True},
        {"ok": True},
        {"id": -1, "ok": True},
        {"id": True, "ok": True},
        {"id": 1, "ok": False},
        {"id": 1, "ok": 1},
        {"id": 1, "ok": False, "error": "text"},
        {"id": 1, "ok": True, "error": {"code": "bad_request"}},
    ],
)
def test_what_is_no_reply_is_a_protocol_error(message: dict[str, Any]) -> None:
    """A message that is neither a result nor an error, or both, is a `ProtocolError`."""
    with pytest.raises(ProtocolError):
        replies(encode(message))


def test_nonsense_is_not_read_as_a_length() -> None:
    """Text in place of a frame does not make the client wait for a gigabyte."""
    with pytest.raises(FrameTooLarge):
        replies(b"HTTP/1.1 400 Bad Request\r\n")


@given(st.lists(st.binary(max_size=64)))
def test_no_bytes_raise_anything_unnamed(data: list[bytes]) -> None:
    """Arbitrary bytes from a daemon raise nothing but the library's errors."""
    connection = ClientConnection()
    with suppress(ProtocolError, ReplyError):
        for piece in data:
            list(connection.receive(piece))


@pytest.mark.parametrize(
    "ignored",
    [[[{}] * 2_000] * 100, [[[]] * 8] * 8, [{"a": {}}] * 10],
    ids=["maps", "lists", "nested maps"],
)
def test_containers_are_counted_before_they_take_memory(ignored: Any) -> None:
    """Containers count against the limit even in unknown fields."""
    (refused,) = opened().receive(encode({"op": "ping", "id": 1, "x": ignored}))
    assert isinstance(refused, Refused)
    assert refused.fatal
    assert "more than 16 lists and maps" in refused.error.message


def test_a_few_containers_more_are_a_newer_client_s() -> None:
    """Unknown fields with a few containers, as of a newer client, are ignored."""
    (request,) = opened().receive(encode({"op": "ping", "id": 1, "x": [{"a": [1, 2]}, {}]}))
    assert request == Ping(id=1)
