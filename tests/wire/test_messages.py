"""Requests, field by field."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_lib.wire.codec import decode, encode
from client_lib.wire.errors import BadRequest
from client_lib.wire.messages import (
    MAX_ID,
    PRECISIONS,
    Cancel,
    Embed,
    Hello,
    Metrics,
    Ping,
    Request,
    Rerank,
    Status,
    check_fields,
    is_id,
    parse_request,
    request_to_map,
)
from client_lib.wire.roles import ROLES

lanes = st.sampled_from(["interactive", "bulk"])
ids = st.integers(0, MAX_ID)
texts = st.lists(st.text(), min_size=1).map(tuple)
counts = st.integers(1, 2**63)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
traces = st.sampled_from([None, TRACEPARENT])
requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(Hello, id=ids, version=counts, client=st.text()),
    st.builds(
        Embed, id=ids, input=texts, model=st.none() | st.text(),
        prompt_name=st.none() | st.text(), normalize=st.none() | st.booleans(),
        dimensions=st.none() | counts, truncate=st.booleans(), priority=lanes,
        timeout_ms=st.none() | counts, traceparent=traces,
        precision=st.sampled_from(PRECISIONS), role=st.sampled_from([None, *ROLES]),
    ),
    st.builds(
        Rerank, id=ids, query=st.text(), documents=texts, model=st.none() | st.text(),
        top_n=st.none() | counts, truncate=st.booleans(), priority=lanes,
        timeout_ms=st.none() | counts, traceparent=traces,
    ),
    st.builds(Status, id=ids),
    st.builds(Ping, id=ids),
    st.builds(Cancel, id=ids, target=ids),
    st.builds(Metrics, id=ids, format=st.sampled_from(["openmetrics", "prometheus"])),
)  # fmt: skip

EMBED = {"id": 1, "op": "embed", "input": ["a"]}
RERANK = {"id": 1, "op": "rerank", "query": "q", "documents": ["a"]}
HELLO = {"id": 1, "op": "hello", "version": 1}
CANCEL = {"id": 1, "op": "cancel", "target": 0}
METRICS = {"id": 1, "op": "metrics"}


@given(requests)
def test_every_request_survives_the_wire(request: Request) -> None:
    """Any request survives encoding and parsing."""
    assert parse_request(decode(encode(request_to_map(request))[4:])) == request


def test_fields_at_their_default_stay_at_home() -> None:
    """Fields at their default are not sent."""
    assert request_to_map(Embed(id=1, input=("a",))) == {"op": "embed", "id": 1, "input": ("a",)}


def test_absent_fields_have_their_defaults() -> None:
    """Missing fields get their documented defaults."""
    request = parse_request(EMBED)
    assert request == Embed(
        id=1, input=("a",), model=None, prompt_name=None, normalize=None, dimensions=None,
        truncate=True, priority="interactive", timeout_ms=None, traceparent=None, role=None,
    )  # fmt: skip


def test_the_least_and_the_most_that_a_field_may_be_are_taken() -> None:
    """Every field accepts its valid values, including the extremes."""
    for message, field, values in (
        (EMBED, "dimensions", [None, 1, 2**40]),
        (EMBED, "timeout_ms", [None, 1, 2**40]),
        (EMBED, "normalize", [None, True, False]),
        (EMBED, "truncate", [True, False]),
        (EMBED, "role", [None, "query", "document"]),
        (EMBED, "priority", ["interactive", "bulk"]),
        (EMBED, "precision", ["float32", "float16", "int8", "uint8", "binary", "ubinary"]),
        (EMBED, "traceparent", [None, TRACEPARENT, TRACEPARENT[:-2] + "00"]),
        (RERANK, "top_n", [None, 1, 2**40]),
        (RERANK, "query", ["", "q" * 10_000]),
        (RERANK, "priority", ["interactive", "bulk"]),
        (HELLO, "client", ["", "c" * 4_096]),
        (CANCEL, "target", [0, MAX_ID]),
        (METRICS, "format", ["openmetrics", "prometheus"]),
    ):
        for value in values:
            assert getattr(parse_request({**message, field: value}), field) == value, field
    assert parse_request(METRICS) == Metrics(id=1, format="openmetrics")
    assert parse_request(HELLO) == Hello(id=1, version=1, client="")
    assert parse_request(RERANK) == Rerank(
        id=1, query="q", documents=("a",), model=None, top_n=None, truncate=True,
        priority="interactive", timeout_ms=None, traceparent=None,
    )  # fmt: skip


def test_a_client_checks_fields_as_the_daemon_does() -> None:
    """The client's field check raises the same errors as the daemon's."""
    check_fields(Embed, {"dimensions": 3, "input": ["a"]})
    check_fields(Embed, {})
    for values in ({"dimensions": 0}, {"input": ["a"], "truncate": 1}, {"input": []}):
        with pytest.raises(BadRequest) as of_client:
            check_fields(Embed, values)
        with pytest.raises(BadRequest) as of_daemon:
            parse_request({**EMBED, **values})
        assert str(of_client.value) == str(of_daemon.value)


def test_fields_from_the_future_are_ignored() -> None:
    """Unknown fields, as of a newer client, are ignored."""
    assert parse_request({**EMBED, "colour": "blue"}) == parse_request(EMBED)


@pytest.mark.parametrize(
    ("message", "field", "bad"),
    [
        (EMBED, "input", [None, "a", [], ["a", 1], ["a", b"b"], {"a": 1}, 3]),
        (EMBED, "model", [1, ["m"], b"m", True]),
        (EMBED, "prompt_name", [1, ["p"], False]),
        (EMBED, "role", ["", "Query", "passage", 1, ["query"], b"query"]),
        (EMBED, "normalize", [1, 0, "yes", []]),
        (EMBED, "dimensions", [0, -1, True, 1.5, "8"]),
        (EMBED, "precision", [None, "", "float", "FLOAT32", "float64", 8, ["int8"], b"int8"]),
        (EMBED, "truncate", [None, 1, "no"]),
        (EMBED, "priority", [None, "", "Bulk", "batch", 1, ["bulk"], b"bulk"]),
        (EMBED, "timeout_ms", [0, -1, True, 2.5, "1"]),
        (EMBED, "traceparent", [1, "", TRACEPARENT.encode()]),
        (METRICS, "format", [None, "", "OpenMetrics", "json", 1, ["prometheus"], b"prometheus"]),
        (RERANK, "query", [None, 1, ["q"], b"q"]),
        (RERANK, "documents", [None, "a", [], [1]]),
        (RERANK, "model", [1, []]),
        (RERANK, "top_n", [0, -1, True, 2.0, "2"]),
        (RERANK, "truncate", [None, 1]),
        (RERANK, "priority", [None, "low", 0]),
        (RERANK, "timeout_ms", [0, False, 0.5, "1"]),
        (RERANK, "traceparent", [1, "", TRACEPARENT.encode()]),
        (HELLO, "version", [None, 0, -1, True, "1", 1.0]),
        (HELLO, "client", [None, 1, b"c"]),
        (CANCEL, "target", [None, -1, True, "1", MAX_ID + 1, 1.0]),
    ],
)
def test_a_wrong_field_is_named(message: dict[str, Any], field: str, bad: list[Any]) -> None:
    """An invalid field is a `BadRequest` that names the op and the field."""
    for value in bad:
        with pytest.raises(BadRequest, match=f"{message['op']}: field '{field}' must be"):
            parse_request({**message, field: value})


@pytest.mark.parametrize(
    ("message", "field"),
    [(EMBED, "input"), (RERANK, "query"), (RERANK, "documents"), (HELLO, "version"),
     (CANCEL, "target")],
)  # fmt: skip
def test_a_missing_field_is_named(message: dict[str, Any], field: str) -> None:
    """A missing required field is a `BadRequest` that names it."""
    without = {key: value for key, value in message.items() if key != field}
    with pytest.raises(BadRequest, match=f"field '{field}' is missing"):
        parse_request(without)


@pytest.mark.parametrize(
    "wrong",
    [
        TRACEPARENT.upper(),
        TRACEPARENT + "-00",  # version 00 has four fields
        TRACEPARENT + "\n",
        TRACEPARENT.replace("00-", "ff-", 1),
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
        TRACEPARENT[:-1],
        TRACEPARENT.replace("00-", "01-", 1) + "x",
        TRACEPARENT.replace("00-", "01-", 1) + "-" + "x" * 201,
        TRACEPARENT.replace("00-", "01-", 1) + "-a b",
        TRACEPARENT.replace("00-", "0-", 1),
    ],
)
def test_an_invalid_traceparent_is_refused(wrong: str) -> None:
    """A traceparent that violates W3C Trace Context is refused."""
    with pytest.raises(BadRequest, match="'traceparent' must be a W3C traceparent"):
        parse_request({**EMBED, "traceparent": wrong})


def test_a_traceparent_of_a_later_version_may_say_more() -> None:
    """A traceparent of a later version may have more fields."""
    later = TRACEPARENT.replace("00-", "01-", 1)
    for value in (later, f"{later}-what-is-to-come", f"{later}-{'x' * 200}"):
        request = parse_request({**EMBED, "traceparent": value})
        assert isinstance(request, Embed)
        assert request.traceparent == value


@pytest.mark.parametrize("op", ["", "EMBED", "embedding", None, 1, ["embed"], {"op": "embed"}])
def test_an_unknown_op_names_the_known(op: Any) -> None:
    """An unknown op is a `BadRequest` that lists the known ones."""
    with pytest.raises(
        BadRequest, match="one of hello, embed, rerank, status, metrics, ping, cancel"
    ):
        parse_request({"id": 1, "op": op})


def test_a_long_op_is_not_echoed_whole() -> None:
    """An error quotes a long op in shortened form, without copying all of it."""
    op = "\x01" * 2**20
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest) as caught:
            parse_request({"id": 1, "op": op})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 200
    assert peak < len(op) / 4


@pytest.mark.parametrize(
    ("message", "field"), [(EMBED, "model"), (EMBED, "prompt_name"), (RERANK, "model"),
                           (HELLO, "client")],
)  # fmt: skip
def test_a_name_has_a_limit(message: dict[str, Any], field: str) -> None:
    """Names may have at most 4,096 characters."""
    parse_request({**message, field: "é" * 4_096})
    expected = f"'{field}' must be a string of at most 4,096 characters"
    with pytest.raises(BadRequest, match=expected):
        parse_request({**message, field: "é" * 4_097})


@pytest.mark.parametrize("value", [None, True, False, -1, MAX_ID + 1, 1.0, "1", b"1", [1]])
def test_what_is_no_id(value: Any) -> None:
    """Anything but an integer from 0 to 2^63 - 1 is not an id."""
    assert not is_id(value)


@pytest.mark.parametrize("value", [0, 1, MAX_ID])
def test_what_is_an_id(value: int) -> None:
    """Integers from 0 to 2^63 - 1 are ids, both ends included."""
    assert is_id(value)
