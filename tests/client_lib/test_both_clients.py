"""What both clients do with any daemon, of which these tests only know `daemon_socket`."""

import os
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from client_lib import BadRequest, ClientClosed, UnknownModel

TEXTS = ["a cat sleeps", "the stock market fell", "ein Hund schläft", "猫が眠る", ""]


@pytest.fixture
def client(connect: Any, daemon_socket: Any) -> Any:
    return connect(daemon_socket)


def test_encode_gives_one_float32_row_a_text(client: Any) -> None:
    """`encode` returns a writable, contiguous float32 array [n, d] for n texts."""
    vectors = client.encode(TEXTS)
    assert vectors.shape[0] == len(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.flags.writeable
    assert vectors.flags.c_contiguous


def test_encode_of_one_string_gives_one_vector(client: Any) -> None:
    """`encode` returns a vector [d] for a single string, equal to the row of a list of it."""
    assert np.array_equal(client.encode(TEXTS[0]), client.encode(TEXTS[:1])[0])


def test_encode_of_nothing_asks_nothing(client: Any) -> None:
    """`encode` returns an array of shape (0, 0) for no texts."""
    assert client.encode([]).shape == (0, 0)


def test_encode_keeps_the_order_over_many_requests(client: Any) -> None:
    """`encode` keeps the order of texts that take several requests."""
    texts = [f"{i} texts" for i in range(600)]
    vectors = client.encode(texts)
    assert vectors.shape[0] == len(texts)
    for row in (0, 255, 256, 511, 512, 599):
        assert np.array_equal(vectors[row], client.encode(texts[row]))


def test_encode_takes_any_iterable(client: Any) -> None:
    """`encode` accepts a generator as well as a list."""
    assert np.array_equal(client.encode(text for text in TEXTS), client.encode(TEXTS))


def test_embed_tells_what_it_did(client: Any) -> None:
    """`embed` returns the vectors, model, usage, timings and truncated texts."""
    reply = client.embed(TEXTS)
    assert np.array_equal(reply.vectors, client.encode(TEXTS))
    assert reply.vectors.flags.writeable
    assert reply.model
    assert reply.usage.total_tokens >= reply.usage.prompt_tokens > 0
    assert reply.timings.total_ms >= reply.timings.compute_ms > 0
    assert reply.timings.batch_rows > 0
    assert reply.truncated == ()


def test_embed_takes_one_string_as_a_list_of_one(client: Any) -> None:
    """`embed` returns [1, d] for a single string."""
    assert client.embed(TEXTS[0]).vectors.shape[0] == 1


@pytest.mark.parametrize(
    ("precision", "dtype", "row_bytes"),
    [
        ("float32", np.float32, lambda d: 4 * d),
        ("float16", np.float16, lambda d: 2 * d),
        ("int8", np.int8, lambda d: d),
        ("uint8", np.uint8, lambda d: d),
        ("binary", np.int8, lambda d: -(-d // 8)),
        ("ubinary", np.uint8, lambda d: -(-d // 8)),
    ],
)
def test_vectors_come_in_the_precision_that_is_asked_for(
    client: Any, precision: Any, dtype: Any, row_bytes: Any
) -> None:
    """`encode` and `embed` return writable, contiguous arrays of the requested precision."""
    texts = [*TEXTS] * 60
    dimensions = client.encode(TEXTS[0]).shape[0]
    vectors = client.encode(texts, precision=precision)
    assert (vectors.dtype, vectors.nbytes) == (dtype, len(texts) * row_bytes(dimensions))
    assert vectors.flags.writeable
    assert vectors.flags.c_contiguous
    assert np.array_equal(vectors[: len(TEXTS)], vectors[-len(TEXTS) :])
    reply = client.embed(TEXTS, precision=precision)
    assert reply.vectors.flags.writeable
    assert reply.vectors.dtype == dtype
    assert np.array_equal(reply.vectors, vectors[: len(TEXTS)])
    assert np.array_equal(client.encode(TEXTS[0], precision=precision), vectors[0])
    assert client.encode([], precision=precision).dtype == dtype


def test_an_unknown_precision_names_those_that_there_are(client: Any) -> None:
    """An unknown precision raises an error that lists the valid ones."""
    for wrong in ("int4", None, ["int8"]):
        for call in (client.encode, client.embed):
            with pytest.raises(
                BadRequest, match="one of float32, float16, int8, uint8, binary, ubinary"
            ):
                call(TEXTS, precision=wrong)
    assert client.ping() > 0


def test_rerank_puts_the_best_first(client: Any) -> None:
    """`rerank` returns every document once, in order of falling relevance."""
    documents = ["the stock market fell", "a cat sleeps", "cats eat"]
    reply = client.rerank("a cat sleeps", documents)
    scores = [hit.relevance_score for hit in reply.results]
    assert reply.results[0].index == 1
    assert scores == sorted(scores, reverse=True)
    assert sorted(hit.index for hit in reply.results) == [0, 1, 2]
    assert reply.method in {"cross_encoder", "embedding"}


def test_rerank_keeps_top_n(client: Any) -> None:
    """`top_n` limits the number of results."""
    assert len(client.rerank("a cat", ["a cat", "a dog", "a cow"], top_n=2).results) == 2


def test_status_and_ping_answer(client: Any) -> None:
    """`status` returns a map, and `ping` a time in seconds within the elapsed time."""
    assert client.status()
    begun = perf_counter()
    assert 0 < client.ping() <= perf_counter() - begun


def test_metrics_come_in_either_format(client: Any) -> None:
    """`metrics` returns text with its content type in both formats, and refuses others."""
    for form in ("openmetrics", "prometheus"):
        reply = client.metrics(form)
        assert reply.content_type.split("/")[0] in {"text", "application"}
        assert reply.text.endswith("\n")
    with pytest.raises(BadRequest, match="openmetrics or prometheus"):
        client.metrics("json")


@pytest.mark.parametrize("bad", [["a", 1], ["a", None], ["a", b"bytes"]])
def test_what_is_no_string_is_named_by_its_index(client: Any, bad: list[Any]) -> None:
    """A text that is not a string raises a `TypeError` with its index."""
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        client.embed(bad)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        client.encode(bad)
    with pytest.raises(TypeError, match=r"documents\[1\]"):
        client.rerank("q", bad)


def test_one_string_is_no_list_of_documents(client: Any) -> None:
    """`rerank` refuses a single string as documents, and a list as query."""
    with pytest.raises(TypeError, match="not one string"):
        client.rerank("q", "document")
    with pytest.raises(TypeError, match="query"):
        client.rerank(["q"], ["document"])


def test_a_refusal_is_typed_and_leaves_the_client_usable(client: Any) -> None:
    """An invalid request raises `BadRequest`, and the next call succeeds."""
    with pytest.raises(BadRequest):
        client.embed([])
    with pytest.raises(BadRequest):
        client.embed(["a"], dimensions=-1)
    assert client.ping() > 0


def test_an_error_says_which_request_it_was(client: Any) -> None:
    """An error carries the request id and notes the process id, as in the daemon's events."""
    client.ping()
    with pytest.raises(BadRequest) as caught:
        client.embed([])
    assert caught.value.request_id == 3  # ids are odd
    assert caught.value.__notes__ == [f"sidecar request 3 of process {os.getpid()}"]
    assert client.ping() > 0


def test_a_trace_is_w3cs(client: Any) -> None:
    """A W3C traceparent is accepted without changing the result, and anything else is refused."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert np.array_equal(client.encode(TEXTS, traceparent=trace), client.encode(TEXTS))
    ranked = client.rerank("q", TEXTS, traceparent=trace).results
    assert ranked == client.rerank("q", TEXTS).results
    for ask in (
        client.encode,
        client.embed,
        lambda *_, **options: client.rerank("q", TEXTS, **options),
    ):
        with pytest.raises(BadRequest, match="traceparent"):
            ask(TEXTS, traceparent="mine")


def test_text_that_is_not_unicode_never_leaves(client: Any) -> None:
    """A lone surrogate raises `BadRequest` with the text's index, and the next call succeeds."""
    many = [*TEXTS * 60, "a\ud800"]
    for call in (client.encode, client.embed, lambda texts: client.rerank("q", texts)):
        with pytest.raises(BadRequest, match=r"\[300\] holds half a character .* at 1") as refused:
            call(many)
        assert refused.value.index == 300
    for call in (lambda: client.rerank("\udfff", ["a"]), lambda: client.embed("a", model="\ud800")):
        with pytest.raises(BadRequest, match=r"(query|model) holds half a character") as refused:
            call()
        assert refused.value.index is None
    assert client.ping() > 0


@pytest.mark.parametrize(
    "wrong",
    [{"a": 1}, {"a", "b"}, frozenset("ab"), b"ab", bytearray(b"ab"), memoryview(b"ab"), 7, None],
)
def test_what_is_no_list_of_texts_is_named(client: Any, wrong: Any) -> None:
    """Maps, sets, bytes and other non-lists are refused as texts, by their type."""
    kind = type(wrong).__name__
    for call in (client.encode, client.embed):
        with pytest.raises(TypeError, match=rf"texts must be a list of strings, not {kind}"):
            call(wrong)
    with pytest.raises(TypeError, match=rf"documents must be a list of strings, not {kind}"):
        client.rerank("q", wrong)


def test_texts_of_numpy_are_texts(client: Any) -> None:
    """NumPy arrays of strings are accepted as texts."""
    assert np.array_equal(client.encode(np.array(["a", "b"])), client.encode(["a", "b"]))
    assert np.array_equal(client.encode(np.array([*"ab"], object)), client.encode(["a", "b"]))


def test_numbers_of_numpy_are_numbers(client: Any) -> None:
    """NumPy integers and bools are accepted like Python's."""
    options = {"dimensions": np.int64(3), "normalize": np.bool_(True), "truncate": np.True_}
    plain = {"dimensions": 3, "normalize": True, "truncate": True}
    assert np.array_equal(client.encode(TEXTS, **options), client.encode(TEXTS, **plain))
    assert np.array_equal(client.embed(TEXTS, **options).vectors, client.encode(TEXTS, **plain))
    assert len(client.rerank("a", TEXTS, top_n=np.uint8(2)).results) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimensions": True}, {"dimensions": np.True_}, {"dimensions": np.float32(3)},
        {"normalize": 1}, {"normalize": np.int8(1)}, {"truncate": None}, {"priority": "low"},
    ],
)  # fmt: skip
def test_an_option_of_another_kind_is_refused_by_name(client: Any, wrong: dict[str, Any]) -> None:
    """An option of the wrong type raises the daemon's error, which names it."""
    (name,) = wrong
    for call in (client.encode, client.embed):
        with pytest.raises(BadRequest, match=f"field '{name}' must be"):
            call(TEXTS, **wrong)
    with pytest.raises(BadRequest, match="field 'top_n' must be a whole number above 0"):
        client.rerank("q", TEXTS, top_n=True)


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, np.float32(30), np.int64(30), 30])
def test_a_timeout_may_be_none_or_infinite(connect: Any, daemon_socket: Any, timeout: Any) -> None:
    """A timeout may be None, infinite or a NumPy number, for the client and for a call."""
    client = connect(daemon_socket, timeout=timeout)
    assert client.ping() > 0
    assert client.ping(timeout=timeout) > 0
    assert client.encode(TEXTS, timeout=timeout).shape[0] == len(TEXTS)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "30", True])
def test_a_timeout_that_is_no_time_is_refused_by_name(
    connect: Any, daemon_socket: Any, wrong: Any
) -> None:
    """An invalid timeout is refused by name, for the client and for a call."""
    message = "timeout must be a number of seconds above 0, or None"
    with pytest.raises((TypeError, ValueError), match=message):
        connect(daemon_socket, timeout=wrong)
    with pytest.raises((TypeError, ValueError), match=message):
        connect(daemon_socket).embed(TEXTS, timeout=wrong)


def test_a_closed_client_says_so(connect: Any, daemon_socket: Any) -> None:
    """Calls after `close` raise `ClientClosed`, and closing twice is fine."""
    client = connect(daemon_socket)
    client.ping()
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match="closed"):
        client.ping()


def test_a_client_that_never_called_closes(connect: Any, daemon_socket: Any) -> None:
    """A client that never connected can be closed."""
    connect(daemon_socket).close()


def test_the_default_socket_is_used(
    connect: Any, daemon_socket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a path, the client uses SIDECAR_SOCKET."""
    monkeypatch.setenv("SIDECAR_SOCKET", str(daemon_socket))
    assert connect().ping() > 0


def test_an_unknown_model_is_typed(client: Any) -> None:
    """A model that the daemon does not serve raises `UnknownModel`."""
    with pytest.raises(UnknownModel):
        client.embed(["a"], model="no-such-model")
