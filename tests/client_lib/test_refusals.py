"""Both clients when the daemon is late, refuses or sends garbage."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client_lib
from client_lib import (
    BackendFailed,
    BadRequest,
    CallTimeout,
    Client,
    ClientClosed,
    DeadlineExceeded,
    Draining,
    Overloaded,
    ProtocolError,
    ReplyError,
    SidecarError,
    TooLarge,
    UnknownModel,
    UnsupportedVersion,
)
from client_lib.wire.errors import _BY_CODE
from client_lib.wire.messages import Cancel, Embed, Request, Rerank
from client_lib.wire.protocol import Limits

from .fake_daemon import Act, FakeDaemon, answer, embed_body, first, vector


def test_a_late_answer_is_a_timeout_and_a_cancel(connect: Any, fake: FakeDaemon) -> None:
    """A call whose time is up raises `CallTimeout` and cancels the request in the daemon."""
    fake.script = lambda request: Act.SILENCE if isinstance(request, Embed) else answer(request)
    client = connect(fake.socket)
    with pytest.raises(CallTimeout, match=r"within 0\.1 s"):
        client.embed(["a"], timeout=0.1)
    (cancel,) = fake.wait_for(Cancel)
    (embed,) = fake.wait_for(Embed)
    assert cancel.target == embed.id
    assert client.ping() > 0


def test_a_reply_that_comes_too_late_is_ignored(connect: Any, fake: FakeDaemon) -> None:
    """A late reply to a timed-out call does not disturb the next call."""
    release = threading.Event()

    def script(request: Request) -> Any:
        release.wait(10)
        return answer(request)

    fake.script = script
    client = connect(fake.socket)
    with pytest.raises(CallTimeout):
        client.embed(["a"], timeout=0.1)
    release.set()
    assert np.array_equal(client.encode("b"), vector("b"))


def test_the_clients_own_timeout_is_the_default(connect: Any, fake: FakeDaemon) -> None:
    """A call without a timeout uses the client's."""
    fake.script = lambda _: Act.SILENCE
    with pytest.raises(CallTimeout, match=r"within 0\.05 s"):
        connect(fake.socket, timeout=0.05).status()


def test_a_timeout_error_is_a_timeout_error(connect: Any, fake: FakeDaemon) -> None:
    """`CallTimeout` can be caught as the builtin `TimeoutError`."""
    fake.script = lambda _: Act.SILENCE
    with pytest.raises(TimeoutError):
        connect(fake.socket, timeout=0.05).ping()


def test_garbage_is_an_error_and_a_new_connection(connect: Any, fake: FakeDaemon) -> None:
    """Garbage from the daemon fails the call, and the next one uses a new connection."""
    fake.script = first(Act.GARBAGE)
    client = connect(fake.socket)
    with pytest.raises(ProtocolError):
        client.embed(["a"])
    assert np.array_equal(client.encode("b"), vector("b"))


@pytest.mark.parametrize("cls", [cls for cls in _BY_CODE.values() if cls is not Draining])
def test_every_code_is_its_own_exception(
    connect: Any, fake: FakeDaemon, cls: type[ReplyError]
) -> None:
    """Each error code raises its own class with message, index and retry_after_ms."""
    fake.script = first(cls("because", index=3, retry_after_ms=250.0))
    client = connect(fake.socket, retries=False)
    with pytest.raises(cls, match="because") as caught:
        client.embed(["a"])
    assert type(caught.value) is cls
    assert (caught.value.index, caught.value.retry_after_ms) == (3, 250.0)
    assert client.ping() > 0


def test_an_overloaded_daemon_is_asked_again(connect: Any, fake: FakeDaemon) -> None:
    """A call refused for overload is retried after the requested pause, with less time left."""
    fake.script = first(Overloaded("full", retry_after_ms=20))
    assert np.array_equal(connect(fake.socket, timeout=30).encode("a"), vector("a"))
    before, after = fake.wait_for(Embed, 2)
    assert 29_000 < after.timeout_ms <= before.timeout_ms - 20
    assert (before.id, fake.connections) == (after.id, 1)


def test_a_pause_that_is_too_long_is_not_made(connect: Any, fake: FakeDaemon) -> None:
    """An overload whose pause exceeds the remaining time is raised at once."""
    fake.script = first(Overloaded("full", retry_after_ms=60_000))
    client = connect(fake.socket, timeout=30)
    with pytest.raises(Overloaded) as caught:
        client.embed(["a"])
    assert caught.value.retry_after_ms == 60_000
    assert client.ping() > 0


def test_close_ends_a_pause(fake: FakeDaemon, submit: Any) -> None:
    """Closing the client ends a pause before a retry with `ClientClosed`."""
    fake.script = first(Overloaded("full", retry_after_ms=10_000))
    client = Client(fake.socket)
    future = submit(client.embed, ["a"])
    fake.wait_for(Embed)
    client.ping()
    client.close()
    with pytest.raises(ClientClosed):
        future.result()


def test_the_time_that_is_left_reaches_the_daemon(connect: Any, fake: FakeDaemon) -> None:
    """The remaining time is sent with every call that computes."""
    client = connect(fake.socket, timeout=30)
    client.encode("a")
    client.encode("a", timeout=7)
    client.embed(["a"], timeout=7)
    client.rerank("a", ["a"], timeout=7)
    times = [request.timeout_ms for request in fake.seen]
    assert 29_000 < times[0] <= 30_000
    assert all(6_000 < each <= 7_000 for each in times[1:])


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EMBED = {
    "model": "fake", "prompt_name": "query", "role": "document", "normalize": False,
    "dimensions": 3, "precision": "float16", "truncate": False, "priority": "bulk",
    "traceparent": TRACE,
}  # fmt: skip
RERANK = {
    "top_n": 2, "model": "fake", "truncate": False, "priority": "bulk", "traceparent": TRACE,
}  # fmt: skip


def test_every_option_reaches_the_daemon(connect: Any, fake: FakeDaemon) -> None:
    """Options reach the daemon as given, and missing ones at the protocol's defaults."""
    client = connect(fake.socket)
    for ask in (client.encode, client.embed):
        ask(["a", "b"], **EMBED)
        ask(["a", "b"])
    client.rerank("q", ["a", "b"], **RERANK)
    client.rerank("q", ["a", "b"])
    embeds, reranks = fake.wait_for(Embed, 4), fake.wait_for(Rerank, 2)
    for request, options in zip(embeds, [EMBED, {}] * 2, strict=True):
        expected = Embed(id=request.id, input=("a", "b"), **options)
        assert replace(request, timeout_ms=None) == expected
    for request, options in zip(reranks, [RERANK, {}], strict=True):
        expected = Rerank(id=request.id, query="q", documents=("a", "b"), **options)
        assert replace(request, timeout_ms=None) == expected
    assert [request.id for request in fake.seen] == [1, 3, 5, 7, 9, 11]


def test_every_error_says_which_request_it_was(connect: Any, tmp_path: Path) -> None:
    """Every error carries its request id, even if the daemon was never reached."""

    def script(request: Request) -> Any:
        return Act.SILENCE if request.id == 3 else answer(request)

    away = connect(tmp_path / "none", retries=False)
    with FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake:
        fake.script = script
        client = connect(fake.socket)
        client.ping()
        wrong = {
            3: lambda: client.ping(timeout=0.05),
            5: lambda: client.embed(["x" * 2000]),
            7: lambda: client.embed(["a"], model="none"),
            1: away.ping,
        }
        for request_id, ask in wrong.items():
            with pytest.raises(SidecarError) as caught:
                ask()
            assert caught.value.request_id == request_id
            notes = [f"sidecar request {request_id} of process {os.getpid()}"]
            assert caught.value.__notes__ == notes


def test_a_deadline_that_the_daemon_sees_is_a_timeout_error(connect: Any, fake: FakeDaemon) -> None:
    """`DeadlineExceeded` can be caught as `TimeoutError`, like `CallTimeout`."""
    fake.script = first(DeadlineExceeded("no"))
    with pytest.raises(TimeoutError) as caught:
        connect(fake.socket).embed(["a"])
    assert isinstance(caught.value, DeadlineExceeded)


def test_a_daemon_of_another_version_is_refused(connect: Any, tmp_path: Path) -> None:
    """A daemon that answers hello with another version is refused without a retry."""
    with FakeDaemon(tmp_path / "v2", version=2) as fake:
        with pytest.raises(UnsupportedVersion, match="2"):
            connect(fake.socket).ping()
        assert fake.connections == 1


def test_a_daemon_that_refuses_the_version_is_believed(
    connect: Any, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's refusal of the client's version is raised without a retry."""
    monkeypatch.setattr("client_lib.calls.VERSION", 9)
    with pytest.raises(UnsupportedVersion, match="version 9"):
        connect(fake.socket).ping()
    assert fake.connections == 1


def test_a_frame_over_the_limit_is_refused_before_it_is_sent(connect: Any, tmp_path: Path) -> None:
    """A request over the known frame limit raises `TooLarge` and is not sent."""
    with FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake:
        client = connect(fake.socket)
        client.ping()
        with pytest.raises(TooLarge, match="1000"):
            client.embed(["x" * 2000])
        client.ping()
        assert not any(isinstance(request, Embed) for request in fake.seen)
        assert fake.connections == 1


@pytest.mark.parametrize("size", [2_000, 8_000_000])
def test_a_frame_over_the_limit_is_refused_by_the_daemon_too(
    connect: Any, tmp_path: Path, size: int
) -> None:
    """A request sent before the frame limit was known raises `TooLarge`, at any length."""
    with (
        FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake,
        pytest.raises(TooLarge, match="1000"),
    ):
        connect(fake.socket).embed(["x" * size])


def test_too_many_texts_for_one_request_is_too_large(connect: Any, tmp_path: Path) -> None:
    """`embed` with more texts than the daemon's limit raises `TooLarge`."""
    with (
        FakeDaemon(tmp_path / "s", Limits(max_inputs=2)) as fake,
        pytest.raises(TooLarge, match="limit is 2"),
    ):
        connect(fake.socket).embed(["a", "b", "c"])


def test_a_text_over_the_limit_is_too_large_by_its_index(connect: Any, tmp_path: Path) -> None:
    """A text over the limit raises `TooLarge` with its index among all texts of the call."""
    with FakeDaemon(tmp_path / "s", Limits(max_text_bytes=1024)) as fake:
        client = connect(fake.socket)
        for ask in (client.embed, client.encode):
            with pytest.raises(TooLarge, match="1026 bytes; the limit for one text is 1024") as got:
                ask(["a"] * 700 + ["é" * 513])
            assert got.value.index == 700
        with pytest.raises(TooLarge, match="field 'query'"):
            client.rerank("q" * 1025, ["a"])
        client.ping()
        assert fake.connections == 1


def test_full_buffers_on_both_sides_do_not_deadlock(connect: Any, fake: FakeDaemon) -> None:
    """Long requests and long replies that fill both buffers do not deadlock."""
    wide = 100_000

    def script(request: Request) -> Any:
        assert isinstance(request, Embed)
        return embed_body([np.full(wide, float(text[:2])) for text in request.input])

    fake.script = script
    texts = [f"{i:02}".ljust(2**20, "x") for i in range(24)]
    vectors = connect(fake.socket).encode(texts)
    assert vectors.shape == (24, wide)
    assert np.array_equal(vectors[:, -1], np.arange(24, dtype=np.float32))


def test_an_encode_that_fails_cancels_the_rest(connect: Any, fake: FakeDaemon) -> None:
    """The first failure of an `encode` cancels its other requests in flight."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed):
            if request.input[0] == "0":
                raise BackendFailed("no")
            return Act.SILENCE
        return answer(request)

    fake.script = script
    client = connect(fake.socket)
    with pytest.raises(BackendFailed):
        client.encode([str(i) for i in range(2000)])
    others = {request.id for request in fake.wait_for(Embed, 4)[1:4]}
    assert {cancel.target for cancel in fake.wait_for(Cancel, 3)} == others
    assert client.ping() > 0


def test_an_encode_never_mixes_models(connect: Any, fake: FakeDaemon) -> None:
    """A model that changes during an `encode` raises `UnknownModel`."""
    models = iter(["old", "new"])
    fake.script = lambda request: embed_body([vector(text) for text in request.input], next(models))
    with pytest.raises(UnknownModel, match="changed from 'old' to 'new'"):
        connect(fake.socket).encode([str(i) for i in range(300)])


def test_an_encode_never_mixes_dimensions(connect: Any, fake: FakeDaemon) -> None:
    """Vectors of different lengths in one `encode` raise `UnknownModel`."""
    lengths = iter([8, 1])
    fake.script = lambda request: embed_body([np.ones(next(lengths))] * len(request.input))
    with pytest.raises(UnknownModel, match="changed from 8 to 1 dimensions"):
        connect(fake.socket).encode([str(i) for i in range(300)])


def test_vectors_of_an_unnamed_model_are_refused(connect: Any, fake: FakeDaemon) -> None:
    """A reply without a model name raises `ProtocolError`."""
    fake.script = lambda request: {**answer(request), "model": None}
    with pytest.raises(ProtocolError, match="does not name its model"):
        connect(fake.socket).encode("a")


def test_a_reply_that_does_not_fit_is_a_protocol_error(connect: Any, fake: FakeDaemon) -> None:
    """A reply with the wrong number of vectors raises `ProtocolError`; the connection stays."""
    fake.script = lambda request: (
        embed_body([vector("one")]) if isinstance(request, Embed) else answer(request)
    )
    client = connect(fake.socket)
    with pytest.raises(ProtocolError, match="2 texts"):
        client.embed(["one", "two"])
    client.ping()
    assert fake.connections == 1


def test_everything_public_is_exported() -> None:
    """`__all__` names every exception and only names that exist."""
    assert set(client_lib.__all__) >= {cls.__name__ for cls in _BY_CODE.values()}
    assert all(hasattr(client_lib, name) for name in client_lib.__all__)


def test_an_error_names_a_text_by_its_index_among_all(connect: Any, fake: FakeDaemon) -> None:
    """An error's index counts all texts of the call, not those of its request."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and "long" in request.input:
            raise BadRequest("too long", index=request.input.index("long"))
        return answer(request)

    fake.script = script
    client = connect(fake.socket)
    for index in (5, 256, 400):
        texts = ["a"] * 600
        texts[index] = "long"
        with pytest.raises(BadRequest) as refused:
            client.encode(texts)
        assert refused.value.index == index


def test_without_a_limit_nothing_is_told_of_one(connect: Any, fake: FakeDaemon) -> None:
    """Without a timeout, no `timeout_ms` is sent."""
    connect(fake.socket, timeout=None).embed(["a"])
    connect(fake.socket).embed(["a"], timeout=float("inf"))
    assert [request.timeout_ms for request in fake.wait_for(Embed, 2)] == [None, None]
