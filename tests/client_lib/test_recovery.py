"""Both clients when the daemon goes, comes back, is late, refuses or talks nonsense."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

import client_lib
from client_lib import (
    BackendFailed,
    CallTimeout,
    ConnectionLost,
    Draining,
    ProtocolError,
    ReplyError,
    TooLarge,
    UnknownModel,
    UnsupportedVersion,
)
from client_lib.wire.codec import FrameDecoder
from client_lib.wire.errors import _BY_CODE
from client_lib.wire.messages import Cancel, Embed, Ping, Request
from client_lib.wire.protocol import Limits, ServerConnection

from .fake_daemon import Act, FakeDaemon, answer, embed_body, vector

Submit = Callable[..., Any]


@pytest.fixture
def submit() -> Iterator[Submit]:
    """Run a call in a thread; its future has what it came to."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def first(act: Act | ReplyError) -> Callable[[Request], Any]:
    """Do `act` with the first embed, and answer everything after it."""
    acts = [act]

    def script(request: Request) -> Any:
        if not (isinstance(request, Embed) and acts):
            return answer(request)
        act = acts.pop()
        if isinstance(act, ReplyError):
            raise act
        return act

    return script


def test_a_restart_in_mid_request_loses_nothing(
    connect: Any, fake: FakeDaemon, submit: Submit
) -> None:
    """A request that was in flight when the daemon went is answered by the next one."""
    fake.script = lambda _: Act.SILENCE
    future = submit(connect(fake.path).embed, ["a text"])
    fake.wait_for(Embed)
    fake.stop()
    fake.script = answer
    fake.start()
    assert np.array_equal(future.result().vectors[0], vector("a text"))


def test_a_restart_in_mid_encode_loses_nothing(
    connect: Any, fake: FakeDaemon, submit: Submit
) -> None:
    """Requests of one encode that were in flight together are all asked again."""
    texts = [f"{i:05}" for i in range(1500)]
    fake.script = lambda _: Act.SILENCE
    future = submit(connect(fake.path).encode, texts)
    fake.wait_for(Embed, 4)
    fake.stop()
    fake.script = answer
    fake.start()
    assert np.array_equal(future.result(), np.stack([vector(text) for text in texts]))


@pytest.mark.parametrize("act", [Act.HANG_UP, Draining("going")])
def test_a_lost_connection_is_made_again(connect: Any, fake: FakeDaemon, act: Any) -> None:
    """A connection that drops, or whose daemon drains, is replaced by another."""
    fake.script = first(act)
    assert np.array_equal(connect(fake.path).encode("a text"), vector("a text"))
    assert fake.connections == 2


def test_a_connection_that_died_idle_is_not_noticed(connect: Any, fake: FakeDaemon) -> None:
    """A daemon that restarts between two calls costs neither of them an error."""
    client = connect(fake.path)
    client.ping()
    fake.stop()
    fake.start()
    assert client.ping() > 0


def test_a_daemon_that_starts_late_is_waited_for(
    connect: Any, tmp_path: Path, submit: Submit
) -> None:
    """A call made before the daemon listens is answered once it does."""
    fake = FakeDaemon(tmp_path / "late")
    future = submit(connect(fake.path).ping)
    with fake:
        assert future.result() > 0


def test_no_daemon_is_an_error_that_helps(connect: Any, tmp_path: Path) -> None:
    """When the time is up, the error names the socket, the cause and what to do."""
    begun = monotonic()
    with pytest.raises(ConnectionLost, match=r"No such file.*sidecar serve") as caught:
        connect(tmp_path / "none", timeout=0.2).ping()
    assert str(tmp_path / "none") in str(caught.value)
    assert 0.2 <= monotonic() - begun < 5


def test_a_daemon_that_always_hangs_up_is_not_stormed(connect: Any, fake: FakeDaemon) -> None:
    """Attempts grow further apart, and the call ends in time."""
    fake.script = lambda _: Act.HANG_UP
    with pytest.raises(ConnectionLost):
        connect(fake.path, timeout=0.4).ping()
    assert 2 <= fake.connections < 12


def test_without_retries_a_loss_is_raised_at_once(
    connect: Any, fake: FakeDaemon, tmp_path: Path
) -> None:
    """With retries=False neither a missing daemon nor a lost one is waited for."""
    with pytest.raises(ConnectionLost, match="sidecar serve"):
        connect(tmp_path / "none", retries=False).ping()
    fake.script = first(Act.HANG_UP)
    with pytest.raises(ConnectionLost):
        connect(fake.path, retries=False).embed(["a"])
    fake.script = first(Draining("going"))
    with pytest.raises(Draining):
        connect(fake.path, retries=False).embed(["a"])


def test_permission_denied_is_not_retried(
    connect: Any, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that may not be used will not get better: the error says so at once."""
    attempts = []

    def refuse(path: str) -> socket.socket:
        attempts.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("client_lib.sync_line.connect", refuse)
    monkeypatch.setattr("client_lib.aio_line.connect", refuse)
    with pytest.raises(ConnectionLost, match=r"Permission denied.*group"):
        connect(fake.path).ping()
    assert len(attempts) == 1


def test_a_path_that_cannot_be_a_socket_is_not_retried(connect: Any) -> None:
    """A path longer than a Unix socket's may be is an error at once."""
    with pytest.raises(ConnectionLost, match="too long"):
        connect("/tmp/" + "x" * 200).ping()


def test_a_late_answer_is_a_timeout_and_a_cancel(connect: Any, fake: FakeDaemon) -> None:
    """When the time is up the call raises CallTimeout, and the daemon is told to drop it."""
    fake.script = lambda request: Act.SILENCE if isinstance(request, Embed) else answer(request)
    client = connect(fake.path)
    with pytest.raises(CallTimeout, match=r"within 0\.1 s"):
        client.embed(["a"], timeout=0.1)
    (cancel,) = fake.wait_for(Cancel)
    (embed,) = fake.wait_for(Embed)
    assert cancel.target == embed.id
    assert client.ping() > 0


def test_a_reply_that_comes_too_late_is_ignored(connect: Any, fake: FakeDaemon) -> None:
    """A reply to a call that has timed out does not disturb the next call."""
    release = threading.Event()

    def script(request: Request) -> Any:
        release.wait(10)
        return answer(request)

    fake.script = script
    client = connect(fake.path)
    with pytest.raises(CallTimeout):
        client.embed(["a"], timeout=0.1)
    release.set()
    assert np.array_equal(client.encode("b"), vector("b"))


def test_the_clients_own_timeout_is_the_default(connect: Any, fake: FakeDaemon) -> None:
    """A call without a timeout has the client's."""
    fake.script = lambda _: Act.SILENCE
    with pytest.raises(CallTimeout, match=r"within 0\.05 s"):
        connect(fake.path, timeout=0.05).status()


def test_a_timeout_error_is_a_timeout_error(connect: Any, fake: FakeDaemon) -> None:
    """Callers may catch the builtin exceptions that they know."""
    fake.script = lambda _: Act.SILENCE
    with pytest.raises(TimeoutError):
        connect(fake.path, timeout=0.05).ping()


def test_garbage_is_an_error_and_a_new_connection(connect: Any, fake: FakeDaemon) -> None:
    """Bytes that are not the protocol fail the call; the next one starts afresh."""
    fake.script = first(Act.GARBAGE)
    client = connect(fake.path)
    with pytest.raises(ProtocolError):
        client.embed(["a"])
    assert np.array_equal(client.encode("b"), vector("b"))


@pytest.mark.parametrize("cls", [cls for cls in _BY_CODE.values() if cls is not Draining])
def test_every_code_is_its_own_exception(
    connect: Any, fake: FakeDaemon, cls: type[ReplyError]
) -> None:
    """A refusal is raised as its class, with message, index and when to come back."""
    fake.script = first(cls("because", index=3, retry_after_ms=250.0))
    client = connect(fake.path)
    with pytest.raises(cls, match="because") as caught:
        client.embed(["a"])
    assert type(caught.value) is cls
    assert (caught.value.index, caught.value.retry_after_ms) == (3, 250.0)
    assert client.ping() > 0


def test_a_daemon_of_another_version_is_refused(connect: Any, tmp_path: Path) -> None:
    """A hello that answers with another version is not retried."""
    with FakeDaemon(tmp_path / "v2", version=2) as fake:
        with pytest.raises(UnsupportedVersion, match="2"):
            connect(fake.path).ping()
        assert fake.connections == 1


def test_a_daemon_that_refuses_the_version_is_believed(
    connect: Any, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's own refusal reaches the caller, and is not retried."""
    monkeypatch.setattr("client_lib.calls.VERSION", 9)
    with pytest.raises(UnsupportedVersion, match="version 9"):
        connect(fake.path).ping()
    assert fake.connections == 1


def test_a_frame_over_the_limit_is_refused_before_it_is_sent(connect: Any, tmp_path: Path) -> None:
    """Once the daemon has stated its limit, a longer request is TooLarge and stays here."""
    with FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake:
        client = connect(fake.path)
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
    """A request sent before the limit was known fails as TooLarge, however long it is."""
    with (
        FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake,
        pytest.raises(TooLarge, match="1000"),
    ):
        connect(fake.path).embed(["x" * size])


def test_too_many_texts_for_one_request_is_too_large(connect: Any, tmp_path: Path) -> None:
    """`embed` is one request, and the daemon bounds it."""
    with (
        FakeDaemon(tmp_path / "s", Limits(max_inputs=2)) as fake,
        pytest.raises(TooLarge, match="limit is 2"),
    ):
        connect(fake.path).embed(["a", "b", "c"])


def test_full_buffers_on_both_sides_do_not_deadlock(connect: Any, fake: FakeDaemon) -> None:
    """A daemon that writes long replies instead of reading still gets long requests."""
    wide = 100_000

    def script(request: Request) -> Any:
        assert isinstance(request, Embed)
        return embed_body([np.full(wide, float(text[:2])) for text in request.input])

    fake.script = script
    texts = [f"{i:02}" + "x" * 2**20 for i in range(24)]
    vectors = connect(fake.path).encode(texts)
    assert vectors.shape == (24, wide)
    assert np.array_equal(vectors[:, -1], np.arange(24, dtype=np.float32))


def test_an_encode_that_fails_cancels_the_rest(connect: Any, fake: FakeDaemon) -> None:
    """The first failure ends an encode; what else was in flight is cancelled."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed):
            if request.input[0] == "0":
                raise BackendFailed("no")
            return Act.SILENCE
        return answer(request)

    fake.script = script
    client = connect(fake.path)
    with pytest.raises(BackendFailed):
        client.encode([str(i) for i in range(2000)])
    others = {request.id for request in fake.wait_for(Embed, 4)[1:4]}
    assert {cancel.target for cancel in fake.wait_for(Cancel, 3)} == others
    assert client.ping() > 0


def test_an_encode_never_mixes_models(connect: Any, fake: FakeDaemon) -> None:
    """A model that changes between two requests of one encode is an error."""
    models = iter(["old", "new"])
    fake.script = lambda request: embed_body([vector(text) for text in request.input], next(models))
    with pytest.raises(UnknownModel, match="'old' became 'new'"):
        connect(fake.path).encode([str(i) for i in range(300)])


def test_a_reply_that_does_not_fit_is_a_protocol_error(connect: Any, fake: FakeDaemon) -> None:
    """Vectors for another number of texts are refused; the connection stays."""
    fake.script = lambda request: (
        embed_body([vector("one")]) if isinstance(request, Embed) else answer(request)
    )
    client = connect(fake.path)
    with pytest.raises(ProtocolError, match="2 texts"):
        client.embed(["one", "two"])
    client.ping()
    assert fake.connections == 1


def test_the_first_request_does_not_wait_for_hello(
    connect: Any, tmp_path: Path, submit: Submit
) -> None:
    """Hello and the first request arrive together, before anything is answered."""
    decoder, server = FrameDecoder(2**20), ServerConnection(Limits())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "raw"))
        listener.listen()
        future = submit(connect(tmp_path / "raw").ping)
        peer, _ = listener.accept()
        with peer:
            maps: list[Any] = []
            while len(maps) < 2:
                maps += decoder.feed(peer.recv(65536))
            assert [m["op"] for m in maps] == ["hello", Ping.op]
            limits = {"max_frame_bytes": 2**20, "max_inputs": 8}
            peer.sendall(server.reply(maps[0]["id"], version=1, limits=limits))
            peer.sendall(server.reply(maps[1]["id"]))
            assert future.result() > 0


def test_everything_public_is_exported() -> None:
    """`__all__` names the clients, the results and every exception, in order."""
    assert set(client_lib.__all__) >= {cls.__name__ for cls in _BY_CODE.values()}
    assert all(hasattr(client_lib, name) for name in client_lib.__all__)
