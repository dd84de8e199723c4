"""The parts that both clients share, without I/O."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from client_lib import (
    BackendFailed,
    ConnectionLost,
    Overloaded,
    ProtocolError,
    UnsupportedVersion,
)
from client_lib.calls import HELLO_ID, Call, Calls, call_ids, request_frame
from client_lib.dial import backoff, connect, pause, unreachable
from client_lib.encoding import chunks
from client_lib.outbox import Outbox
from client_lib.trust import Trust
from client_lib.wire.codec import decode
from client_lib.wire.messages import Embed, Ping
from client_lib.wire.protocol import Limits, ServerConnection

LIMITS = {"max_frame_bytes": 2**20, "max_inputs": 10}


def call(request_id: int) -> Call:
    return Call(Ping(id=request_id), deadline=0, timeout=0)


def waiting(*ids: int) -> tuple[Calls[Call], ServerConnection, list[Call]]:
    calls: Calls[Call] = Calls()
    added = [call(request_id) for request_id in ids]
    server = ServerConnection(Limits())
    list(server.receive(calls.greeting()))
    for each in added:
        list(server.receive(calls.add(each, left=1)))
    return calls, server, added


def test_ids_leave_room_for_cancel() -> None:
    """No call has the id with which another is cancelled."""
    ids = call_ids()
    taken = [call(next(ids)) for _ in range(3)]
    assert [each.id for each in taken] == [1, 3, 5]
    assert [each.cancel_id for each in taken] == [2, 4, 6]


def test_replies_settle_calls_by_id() -> None:
    """Each reply finds its call, in whatever order it comes."""
    calls, server, (one, three) = waiting(1, 3)
    data = server.reply(3, x=3) + server.fail(1, BackendFailed("no"))
    assert list(calls.receive(data)) == [three, one]
    assert three.result()["x"] == 3
    with pytest.raises(BackendFailed):
        one.result()
    assert len(calls) == 0


def test_a_reply_to_nobody_is_ignored() -> None:
    """A call that was cancelled may still be answered; nobody minds."""
    calls, server, (one, three) = waiting(1, 3)
    cancel = decode(calls.cancel(one)[4:])
    assert (cancel["op"], cancel["id"], cancel["target"]) == ("cancel", 2, 1)
    assert list(calls.receive(server.reply(1) + server.reply(3))) == [three]


def test_hello_states_the_limits() -> None:
    """The daemon's limits replace the assumed ones; hello settles no call."""
    calls, server, _ = waiting(1)
    data = server.reply(HELLO_ID, version=1, limits={**LIMITS, "more": 1})
    assert list(calls.receive(data)) == []
    assert calls.limits == Limits(2**20, 10)
    stated = {**LIMITS, "max_text_bytes": 5_000}
    list(calls.receive(server.reply(HELLO_ID, version=1, limits=stated)))
    assert calls.limits == Limits(2**20, 10, 5_000)


def test_hello_of_another_version_fails_the_connection() -> None:
    """A client that cannot speak the daemon's version says so."""
    calls, server, _ = waiting()
    with pytest.raises(UnsupportedVersion):
        list(calls.receive(server.reply(HELLO_ID, version=2, limits=LIMITS)))


@pytest.mark.parametrize("limits", [None, {}, {"max_frame_bytes": None, "max_inputs": 1}])
def test_hello_without_limits_fails_the_connection(limits: object) -> None:
    """A daemon that does not state its limits is not one."""
    calls, server, _ = waiting()
    with pytest.raises(ProtocolError):
        list(calls.receive(server.reply(HELLO_ID, version=1, limits=limits)))


def test_a_lost_connection_settles_each_call_with_its_own_error() -> None:
    """Threads that raise it do not share a traceback."""
    calls, _, (one, three) = waiting(1, 3)
    error = ConnectionLost("gone")
    assert calls.drop_all(error) == [one, three]
    assert str(one.outcome) == str(three.outcome) == "gone"
    assert len({id(error), id(one.outcome), id(three.outcome)}) == 3


def test_pauses_grow_to_a_second() -> None:
    """The first attempt is made at once; then 20 ms, doubling to 1 s, at least half of each."""
    assert pause(0) == 0
    for failures, full in [(1, 0.02), (2, 0.04), (5, 0.32), (7, 1.0), (10_000, 1.0)]:
        assert all(full / 2 <= pause(failures) <= full for _ in range(20))


def test_pauses_stay_short_where_the_backlog_is_full() -> None:
    """The daemon is there; other causes count as they do without."""
    full = BlockingIOError()
    assert all(0.01 <= pause(failures, full) <= 0.02 for failures in (1, 5, 100))
    assert pause(0, full) == 0
    assert pause(100, FileNotFoundError()) >= 0.5


def test_a_refused_call_stays_away_as_long_as_it_is_asked_to() -> None:
    """And up to as long again, by chance."""
    refusal = Overloaded("full", retry_after_ms=100)
    assert all(0.1 <= backoff(refusal) <= 0.2 for _ in range(20))
    assert backoff(Overloaded("full")) == 0


def test_the_daemon_is_told_how_much_time_is_left() -> None:
    """In whole milliseconds, one at least; nothing where there is no end, or nothing to compute."""
    embed = Embed(id=1, input=("a",))
    sent = {left: decode(request_frame(embed, left)[4:]) for left in (2.5, 0.0, float("inf"))}
    assert [message.get("timeout_ms") for message in sent.values()] == [2500, 1, None]
    assert "timeout_ms" not in decode(request_frame(Ping(id=1), 2.5)[4:])


def test_a_full_backlog_is_told_apart_from_success(tmp_path: Path) -> None:
    """Connecting never waits: a daemon that accepts nobody is BlockingIOError."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with connect(str(tmp_path / "s"), Trust()), pytest.raises(BlockingIOError):
            connect(str(tmp_path / "s"), Trust())


def test_the_error_for_no_daemon_says_what_to_do() -> None:
    """A missing daemon and a missing permission have different cures."""
    assert "sidecar serve" in str(unreachable("/s", FileNotFoundError(2, "No such file")))
    assert "group" in str(unreachable("/s", PermissionError(13, "Permission denied")))


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        ([], []),
        (["a"], [1]),
        (["a"] * 256, [256]),
        (["a"] * 257, [256, 1]),
        (["a" * 2**20] * 9, [4, 4, 1]),
        (["猫" * 2**20] * 3, [1, 1, 1]),  # 3 MiB each as UTF-8
        (["a", "b" * 2**23, "c"], [1, 1, 1]),
    ],
)
def test_requests_close_at_256_texts_or_4_mib(texts: list[str], sizes: list[int]) -> None:
    """Slices are consecutive, cover everything, and keep to both bounds."""
    slices = list(chunks(tuple(texts)))
    assert [s.stop - s.start for s in slices] == sizes
    assert [text for s in slices for text in texts[s]] == texts


def test_a_frame_that_began_to_leave_is_not_taken_back() -> None:
    """The rest of it must follow, or the daemon would read the next as its end."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        outbox = Outbox()
        for request_id in (1, 3):
            outbox.put(request_id, b"x" * 2_000_000)
        with pytest.raises(BlockingIOError):
            outbox.flush(here)
        assert not outbox.withdraw(1)
        assert outbox.withdraw(3)
        assert not outbox.withdraw(3)
        assert len(outbox) == 1


def test_importing_the_client_stays_light() -> None:
    """Neither the daemon nor any model library comes along."""
    program = "import client_lib, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    command = [sys.executable, "-c", program]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    foreign = {m for m in loaded if m not in sys.stdlib_module_names and not m.startswith("_")}
    assert {"msgpack", "numpy", "client_lib"} <= foreign
    assert not foreign & {"torch", "sidecar", "onnxruntime", "tokenizers", "uvloop", "structlog"}
