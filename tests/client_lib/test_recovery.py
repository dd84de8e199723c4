"""Both clients when the daemon disappears, returns or was never there."""

import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from client_lib import CallTimeout, ConnectionLost, Draining, TooLarge
from client_lib.dial import connect as dial
from client_lib.recovery import pause
from client_lib.trust import Trust
from client_lib.wire.codec import FrameDecoder
from client_lib.wire.messages import Embed, Ping
from client_lib.wire.protocol import Limits, ServerConnection

from .fake_daemon import Act, FakeDaemon, answer, first, vector

Submit = Callable[..., Any]


def test_a_restart_in_mid_request_loses_nothing(
    connect: Any, fake: FakeDaemon, submit: Submit
) -> None:
    """A request in flight during a daemon restart is answered by the new daemon."""
    fake.script = lambda _: Act.SILENCE
    future = submit(connect(fake.socket).embed, ["a text"])
    fake.wait_for(Embed)
    fake.stop()
    fake.script = answer
    fake.start()
    assert np.array_equal(future.result().vectors[0], vector("a text"))


def test_a_restart_in_mid_encode_loses_nothing(
    connect: Any, fake: FakeDaemon, submit: Submit
) -> None:
    """All requests of one `encode` in flight during a restart are repeated."""
    texts = [f"{i:05}" for i in range(1500)]
    fake.script = lambda _: Act.SILENCE
    future = submit(connect(fake.socket).encode, texts)
    fake.wait_for(Embed, 4)
    fake.stop()
    fake.script = answer
    fake.start()
    assert np.array_equal(future.result(), np.stack([vector(text) for text in texts]))


@pytest.mark.parametrize("act", [Act.HANG_UP, Draining("going")])
def test_a_lost_connection_is_made_again(connect: Any, fake: FakeDaemon, act: Any) -> None:
    """A dropped or draining connection is replaced by another."""
    fake.script = first(act)
    client = connect(fake.socket)
    assert np.array_equal(client.encode("a text"), vector("a text"))
    assert fake.connections == 2
    fake.wait_until_left(1)


def test_a_connection_that_died_idle_is_not_noticed(connect: Any, fake: FakeDaemon) -> None:
    """A daemon restart between two calls causes no error."""
    client = connect(fake.socket)
    client.ping()
    fake.stop()
    fake.start()
    assert client.ping() > 0


def test_a_daemon_that_starts_late_is_waited_for(
    connect: Any, tmp_path: Path, submit: Submit
) -> None:
    """A call made before the daemon listens is answered once it does."""
    fake = FakeDaemon(tmp_path / "late")
    future = submit(connect(fake.socket).ping)
    with fake:
        assert future.result() > 0


def test_no_daemon_is_an_error_that_helps(connect: Any, tmp_path: Path) -> None:
    """Without a daemon, the error after the timeout names the socket, the cause and a remedy."""
    begun = monotonic()
    with pytest.raises(ConnectionLost, match=r"No such file.*sidecar serve") as caught:
        connect(tmp_path / "none", timeout=0.2).ping()
    assert str(tmp_path / "none") in str(caught.value)
    assert 0.2 <= monotonic() - begun < 5


def test_a_daemon_that_always_hangs_up_is_not_stormed(connect: Any, fake: FakeDaemon) -> None:
    """Against a daemon that always hangs up, attempts slow down and the call ends in time."""
    fake.script = lambda _: Act.HANG_UP
    # Which of the two depends on whether the time runs out between two connections or during one.
    with pytest.raises((ConnectionLost, CallTimeout)):
        connect(fake.socket, timeout=0.4).ping()
    assert 2 <= fake.connections < 12


def test_without_retries_a_loss_is_raised_at_once(
    connect: Any, fake: FakeDaemon, tmp_path: Path
) -> None:
    """With retries=False, a missing, lost or draining daemon is an error at once."""
    with pytest.raises(ConnectionLost, match="sidecar serve"):
        connect(tmp_path / "none", retries=False).ping()
    fake.script = first(Act.HANG_UP)
    with pytest.raises(ConnectionLost):
        connect(fake.socket, retries=False).embed(["a"])
    fake.script = first(Draining("going"))
    with pytest.raises(Draining):
        connect(fake.socket, retries=False).embed(["a"])


def test_permission_denied_is_not_retried(
    connect: Any, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission error on the socket is raised at once, without a retry."""
    attempts = []

    def refuse(path: str, trust: Trust) -> socket.socket:
        attempts.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("client_lib.sync_reconnect.connect", refuse)
    monkeypatch.setattr("client_lib.aio_reconnect.connect", refuse)
    with pytest.raises(ConnectionLost, match=r"Permission denied.*group"):
        connect(fake.socket).ping()
    assert len(attempts) == 1


def test_a_path_that_cannot_be_a_socket_is_not_retried(connect: Any) -> None:
    """A path too long for a Unix socket is an error at once."""
    with pytest.raises(ConnectionLost, match=r"its path has 205 bytes, .* at most 107"):
        connect("/tmp/" + "x" * 200).ping()


def test_what_the_daemon_takes_is_remembered(connect: Any, tmp_path: Path) -> None:
    """The daemon's limits are kept after a lost connection, so an oversized frame is not sent."""
    with FakeDaemon(tmp_path / "s", Limits(max_frame_bytes=1000)) as fake:
        client = connect(fake.socket, retries=False)
        client.ping()
        fake.script = lambda _: Act.HANG_UP
        with pytest.raises(ConnectionLost):
            client.ping()
        fake.script = answer
        with pytest.raises(TooLarge, match="accepts at most 1000"):
            client.embed(["x" * 2000])
        assert client.ping() > 0
        assert fake.received < 2000


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> tuple[list[OSError], list[float]]:
    """The errors that attempts to connect raise until used up, and the pauses before attempts.

    The pauses are recorded instead of made.
    """
    errors: list[OSError] = []
    pauses: list[float] = []

    def dialed(path: str, trust: Trust) -> socket.socket:
        if errors:
            raise errors.pop()
        return dial(path, trust)

    def recorded(failures: int, cause: Exception | None = None) -> float:
        pauses.append(pause(failures, cause))
        return 0.0

    for room in ("sync_reconnect", "aio_reconnect"):
        monkeypatch.setattr(f"client_lib.{room}.connect", dialed)
    monkeypatch.setattr("client_lib.recovery.pause", recorded)
    return errors, pauses


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (BlockingIOError(11, "Resource temporarily unavailable"), 0.02),
        (ConnectionRefusedError(111, "Connection refused"), 1.0),
        (FileNotFoundError(2, "No such file or directory"), 1.0),
    ],
    ids=["full", "refused", "absent"],
)
def test_what_passes_is_waited_for(
    connect: Any, fake: FakeDaemon, failing: Any, error: OSError, longest: float
) -> None:
    """Transient errors are retried with growing pauses, which stay short for a full backlog."""
    errors, pauses = failing
    errors += [error] * 9
    assert connect(fake.socket).ping() > 0
    made = [seconds for seconds in pauses if seconds > 0]
    assert len(made) == 9
    assert longest / 2 <= max(made) <= longest


def test_a_call_that_is_asked_again_is_asked_once(connect: Any, fake: FakeDaemon) -> None:
    """A repeated call keeps its id and is sent only once to the next daemon."""
    client = connect(fake.socket)
    fake.script = first(Act.HANG_UP)
    client.embed(["a"])
    client.ping()
    lost, again = fake.wait_for(Embed, 2)
    assert lost.id == again.id


def test_the_first_request_does_not_wait_for_hello(
    connect: Any, tmp_path: Path, submit: Submit
) -> None:
    """Hello and the first request are sent together, before any reply."""
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
