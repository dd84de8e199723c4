"""One `Client`, several threads; and forks."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import CallTimeout, Client, ClientClosed, ConnectionLost, Draining, operations
from client_lib.sync_reconnect import ReconnectingConnection
from client_lib.trust import Trust
from client_lib.wire.messages import Cancel, Embed, Request
from client_lib.wire.protocol import Limits

from .fake_daemon import Act, FakeDaemon, answer, embed_body, vector
from .played import PlayedDaemon


@pytest.fixture
def client(fake: FakeDaemon) -> Iterator[Client]:
    with Client(fake.socket) as client:
        yield client


def held(event: threading.Event, text: str) -> Callable[[Request], Any]:
    """Delay the answer to `text` until `event`, and never answer "never"."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and request.input == ("never",):
            return Act.SILENCE
        if isinstance(request, Embed) and request.input == (text,):
            event.wait(10)
        return answer(request)

    return script


def test_threads_share_one_connection(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Concurrent threads each get their own answers over one connection."""

    def work(thread: int) -> bool:
        texts = [f"{thread:02}-{call:02}" for call in range(40)]
        return all(np.array_equal(client.encode(text), vector(text)) for text in texts)

    assert all(future.result() for future in [submit(work, thread) for thread in range(16)])
    assert fake.connections == 1


def test_the_lead_passes_on_when_the_leader_times_out(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """When the thread that reads for all times out, another one takes over."""
    release = threading.Event()
    fake.script = held(release, "kept")
    leader = submit(client.embed, ["never"], timeout=0.3)
    fake.wait_for(Embed, 1)
    follower = submit(client.encode, "kept")
    fake.wait_for(Embed, 2)
    with pytest.raises(CallTimeout):
        leader.result()
    release.set()
    assert np.array_equal(follower.result(), vector("kept"))


def test_a_follower_times_out_by_itself(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """A thread waiting for another to read keeps its own deadline."""
    release = threading.Event()
    fake.script = held(release, "kept")
    leader = submit(client.encode, "kept")
    fake.wait_for(Embed, 1)
    with pytest.raises(CallTimeout):
        client.embed(["never"], timeout=0.1)
    release.set()
    assert np.array_equal(leader.result(), vector("kept"))


def test_a_restart_under_many_threads_loses_nothing(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """The calls of all threads survive a daemon restart."""
    fake.script = lambda _: Act.SILENCE
    futures = [submit(client.encode, f"{i:02}") for i in range(12)]
    fake.wait_for(Embed, 12)
    fake.stop()
    fake.script = answer
    fake.start()
    for i, future in enumerate(futures):
        assert np.array_equal(future.result(), vector(f"{i:02}"))


def test_restarts_under_load_lose_nothing(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Repeated daemon restarts under load cause no error in any thread."""

    def work(thread: int) -> bool:
        texts = [f"{thread}-{call:03}" for call in range(100)]
        return all(np.array_equal(client.encode(text), vector(text)) for text in texts)

    futures = [submit(work, thread) for thread in range(6)]
    for restart in range(1, 4):
        fake.wait_for(Embed, restart * 100)
        fake.stop()
        fake.start()
    assert all(future.result() for future in futures)


def test_huge_requests_and_replies_cross(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Huge requests and replies of several threads do not block one another."""
    fake.limits = Limits(max_text_bytes=2**22)
    fake.script = lambda request: (
        embed_body([np.full(500_000, float(request.input[0][:2]))])
        if isinstance(request, Embed)
        else answer(request)
    )
    texts = [f"{i:02}" + "x" * 3_000_000 for i in range(8)]
    futures = [submit(client.encode, text) for text in texts]
    assert [int(future.result()[-1]) for future in futures] == list(range(8))


def test_frames_of_calls_that_gave_up_do_not_pile_up(client: Client, fake: FakeDaemon) -> None:
    """A call that times out withdraws its unsent frame while the daemon does not read."""
    release = threading.Event()
    fake.script = held(release, "first")
    with pytest.raises(CallTimeout):
        client.embed(["first"], timeout=0.05)
    for _ in range(4):
        with pytest.raises(CallTimeout):
            client.embed(["x" * 2_000_000], timeout=0.05)
    release.set()
    assert client.ping() > 0
    assert fake.received < 2 * 2_000_000  # only the frame already sent in part
    assert fake.unsettled == 0


def test_a_pipeline_that_is_left_cancels_what_is_in_flight(
    client: Client, fake: FakeDaemon
) -> None:
    """A pipeline yields in order within its window, and cancels what is in flight when closed."""
    fake.script = lambda request: (
        Act.SILENCE if isinstance(request, Embed) and request.input != ("0",) else answer(request)
    )
    replies = client.pipeline((operations.embed([str(i)]) for i in range(9)), window=3)
    assert np.array_equal(next(replies).vectors, [vector("0")])
    client.ping()  # by now the daemon has received everything sent before
    asked = fake.wait_for(Embed, 3)
    assert len(asked) == 3
    replies.close()
    cancelled = fake.wait_for(Cancel, 2)
    assert {cancel.target for cancel in cancelled} == {embed.id for embed in asked[1:]}
    fake.script = answer
    assert np.array_equal(client.encode("next"), vector("next"))


def test_close_wakes_every_thread(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Closing the client fails the calls of all threads with `ClientClosed`."""
    fake.script = lambda _: Act.SILENCE
    futures = [submit(client.embed, [str(i)]) for i in range(4)]
    fake.wait_for(Embed, 4)
    client.close()
    for future in futures:
        with pytest.raises(ClientClosed):
            future.result()


def test_close_ends_the_wait_for_a_daemon(
    tmp_path: Any, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing the client fails a call waiting for a daemon with `ClientClosed`."""
    tried = threading.Event()

    def connect(path: str, trust: Trust) -> Any:
        tried.set()
        raise FileNotFoundError(path)

    monkeypatch.setattr("client_lib.sync_reconnect.connect", connect)
    client = Client(tmp_path / "none")
    future = submit(client.ping)
    assert tried.wait(10)
    client.close()
    with pytest.raises(ClientClosed):
        future.result()


def test_another_threads_dial_is_waited_for_as_long_as_there_is_time(
    tmp_path: Any, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call waiting for another thread's connection attempt keeps its own deadline."""
    tried = threading.Event()

    def connect(path: str, trust: Trust) -> Any:
        tried.set()
        raise FileNotFoundError(path)

    monkeypatch.setattr("client_lib.sync_reconnect.connect", connect)
    with Client(tmp_path / "none") as client:
        dialing = submit(client.ping)
        assert tried.wait(10)
        with pytest.raises(ConnectionLost):
            client.ping(timeout=0.05)
        assert not dialing.done()
    with pytest.raises(ClientClosed):
        dialing.result()


def test_without_a_limit_threads_wait_for_each_other(
    fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Without a timeout, threads wait for the reader indefinitely without an overflow."""
    release = threading.Event()
    fake.script = held(release, "a")
    with Client(fake.socket, timeout=None) as client:
        futures = [submit(client.encode, "a")]
        fake.wait_for(Embed)
        futures += [submit(client.encode, "b"), submit(client.encode, "c")]
        with pytest.raises(CallTimeout):
            client.ping(timeout=0.05)
        release.set()
        assert [future.result().tobytes() for future in futures] == [
            vector(text).tobytes() for text in "abc"
        ]


def test_threads_that_come_together_share_the_first_connection(
    fake: FakeDaemon, submit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that connect at the same time share one connection."""
    together = threading.Barrier(2, timeout=10)

    class Met(ReconnectingConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            together.wait()

    monkeypatch.setattr("client_lib.sync.ReconnectingConnection", Met)
    with Client(fake.socket) as client:
        for future in [submit(client.encode, text) for text in "ab"]:
            future.result()
    assert fake.connections == 1


def test_one_message_may_answer_several_threads(tmp_path: Path, submit: Callable[..., Any]) -> None:
    """When one message answers several threads, a thread still waiting becomes the reader."""
    with PlayedDaemon(tmp_path / "s") as daemon, Client(daemon.socket, timeout=5) as client:
        futures = [submit(client.encode, "0")]
        connection = daemon.accept()
        for _ in range(10):
            asked = [connection.take()]
            for text in ("1", "2"):
                futures.append(submit(client.encode, text))
                asked.append(connection.take())
            connection.say(*map(connection.answered, asked[:2]))
            for future in futures[:2]:
                future.result()
            connection.say(connection.answered(asked[2]))
            assert np.array_equal(futures[2].result(), vector("2"))
            futures = [submit(client.encode, "0")]
        connection.say(connection.answered(connection.take()))
        futures[0].result()


def test_a_daemon_that_goes_answers_what_it_has_taken(
    tmp_path: Path, submit: Callable[..., Any]
) -> None:
    """A draining daemon answers accepted calls; refused ones go to its successor."""
    with PlayedDaemon(tmp_path / "s") as daemon, Client(daemon.socket) as client:
        kept = submit(client.encode, "kept")
        old = daemon.accept()
        taken = old.take()
        refused = submit(client.encode, "refused")
        old.say(old.refused(old.take(), Draining("going")))
        new = daemon.accept()
        again = new.take()
        new.say(new.answered(again))
        assert np.array_equal(refused.result(), vector("refused"))
        old.say(old.answered(taken))
        assert np.array_equal(kept.result(), vector("kept"))
        assert old.has_ended()
        later = submit(client.ping)
        new.say(new.answered(new.take()))  # not the kept call
        assert later.result() > 0


def test_a_daemon_that_goes_is_left_with_the_last_call_that_is_given_up(
    tmp_path: Path, submit: Callable[..., Any]
) -> None:
    """The connection to a draining daemon is closed when its last call times out."""
    with PlayedDaemon(tmp_path / "s") as daemon, Client(daemon.socket) as client:
        late = submit(client.encode, "late", timeout=0.5)
        old = daemon.accept()
        old.take()
        refused = submit(client.encode, "refused")
        old.say(old.refused(old.take(), Draining("going")))
        new = daemon.accept()
        new.say(new.answered(new.take()))
        refused.result()
        with pytest.raises(CallTimeout):
            late.result()
        assert isinstance(old.take(), Cancel)
        assert old.has_ended()


def test_who_asks_but_once_is_told_that_the_client_was_closed(
    fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """Without retries, closing the client raises `ClientClosed` rather than `ConnectionLost`."""
    fake.script = lambda _: Act.SILENCE
    client = Client(fake.socket, retries=False)
    call = submit(client.encode, "a")
    fake.wait_for(Embed, 1)
    client.close()
    with pytest.raises(ClientClosed):
        call.result()


def test_a_forked_child_that_closes_leaves_the_parents_connection(
    client: Client, fake: FakeDaemon
) -> None:
    """Closing the client in a forked child leaves the parent's connection open."""
    client.ping()
    pid = os.fork()
    if pid == 0:
        try:
            client.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert client.ping() > 0
    assert fake.connections == 1


def test_a_forked_child_has_its_own_connection(
    client: Client, fake: FakeDaemon, submit: Callable[..., Any]
) -> None:
    """A forked child opens its own connection and does not disturb the parent's calls."""
    release = threading.Event()
    fake.script = held(release, "parent")
    parents = submit(client.encode, "parent")
    fake.wait_for(Embed, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns, given threads
        pid = os.fork()
    if pid == 0:
        try:
            right = np.array_equal(client.encode("child"), vector("child"))
            client.close()
        finally:
            os._exit(0 if right else 1)
    _, status = os.waitpid(pid, 0)
    release.set()
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(parents.result(), vector("parent"))
    assert np.array_equal(client.encode("after"), vector("after"))
    assert fake.connections == 2
