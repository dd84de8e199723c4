"""The parts that both clients share, without I/O."""

import math
import random
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from client_lib import (
    BackendFailed,
    ConnectionLost,
    Overloaded,
    ProtocolError,
    TooLarge,
    UnsupportedVersion,
)
from client_lib.address import default_socket, too_long
from client_lib.calls import HELLO_ID, Call, Calls, call_ids, request_frame
from client_lib.dial import connect
from client_lib.encoding import chunks
from client_lib.names import is_path, is_same
from client_lib.outbox import Outbox
from client_lib.recovery import backoff, pause, unreachable
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
    """Call ids are odd, so that the id of a cancel never collides with a call's."""
    ids = call_ids()
    taken = [call(next(ids)) for _ in range(3)]
    assert [each.id for each in taken] == [1, 3, 5]
    assert [each.cancel_id for each in taken] == [2, 4, 6]


def test_replies_settle_calls_by_id() -> None:
    """Each reply settles the call with its id, in any order."""
    calls, server, (one, three) = waiting(1, 3)
    data = server.reply(3, x=3) + server.fail(1, BackendFailed("no"))
    assert list(calls.receive(data)) == [three, one]
    assert three.result()["x"] == 3
    with pytest.raises(BackendFailed):
        one.result()
    assert len(calls) == 0


def test_a_reply_to_nobody_is_ignored() -> None:
    """A reply to a cancelled call is ignored."""
    calls, server, (one, three) = waiting(1, 3)
    cancel = decode(calls.cancel(one)[4:])
    assert (cancel["op"], cancel["id"], cancel["target"]) == ("cancel", 2, 1)
    assert list(calls.receive(server.reply(1) + server.reply(3))) == [three]


def test_hello_states_the_limits() -> None:
    """The limits in the reply to hello replace the assumed ones."""
    calls, server, _ = waiting(1)
    data = server.reply(HELLO_ID, version=1, limits={**LIMITS, "more": 1})
    assert list(calls.receive(data)) == []
    assert calls.limits == Limits(2**20, 10)
    stated = {**LIMITS, "max_text_bytes": 5_000}
    list(calls.receive(server.reply(HELLO_ID, version=1, limits=stated)))
    assert calls.limits == Limits(2**20, 10, 5_000)


def test_hello_of_another_version_fails_the_connection() -> None:
    """A daemon of another protocol version raises `UnsupportedVersion`."""
    calls, server, _ = waiting()
    with pytest.raises(UnsupportedVersion):
        list(calls.receive(server.reply(HELLO_ID, version=2, limits=LIMITS)))


@pytest.mark.parametrize("limits", [None, {}, {"max_frame_bytes": None, "max_inputs": 1}])
def test_hello_without_limits_fails_the_connection(limits: object) -> None:
    """A reply to hello without valid limits raises `ProtocolError`."""
    calls, server, _ = waiting()
    with pytest.raises(ProtocolError):
        list(calls.receive(server.reply(HELLO_ID, version=1, limits=limits)))


def test_a_lost_connection_settles_each_call_with_its_own_error() -> None:
    """A lost connection fails each call with a separate exception, so tracebacks are not shared."""
    calls, _, (one, three) = waiting(1, 3)
    error = ConnectionLost("gone")
    assert calls.drop_all(error) == [one, three]
    assert len(calls) == 0
    assert str(one.outcome) == str(three.outcome) == "gone"
    assert len({id(error), id(one.outcome), id(three.outcome)}) == 3


@pytest.fixture(params=[0.0, 0.25, 1.0])
def luck(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Fix the random part of pauses, from 0 to 1."""
    share: float = request.param
    monkeypatch.setattr(random, "uniform", lambda low, high: low + share * (high - low))
    return share


def test_pauses_grow_to_a_second(luck: float) -> None:
    """The first attempt is immediate; then pauses double from 20 ms to 1 s, half of each random."""
    assert pause(0) == 0
    for failures, full in [(1, 0.02), (2, 0.04), (5, 0.32), (6, 0.64), (7, 1.0), (10_000, 1.0)]:
        assert pause(failures) == pytest.approx(full / 2 + luck * full / 2), failures


def test_pauses_stay_short_where_the_backlog_is_full(luck: float) -> None:
    """Pauses stay at 10 to 20 ms while the daemon's backlog is full."""
    full = BlockingIOError()
    for failures in (1, 5, 100):
        assert pause(failures, full) == pytest.approx(0.01 + luck * 0.01), failures
    assert pause(0, full) == 0
    assert pause(100, FileNotFoundError()) == pytest.approx(0.5 + luck * 0.5)


def test_a_refused_call_stays_away_as_long_as_it_is_asked_to(luck: float) -> None:
    """A retry after overload waits for `retry_after_ms`, plus up to as long again at random."""
    refusal = Overloaded("full", retry_after_ms=100)
    assert backoff(refusal) == pytest.approx(0.1 + luck * 0.1)
    assert backoff(Overloaded("full")) == 0


def test_a_request_may_be_as_long_as_the_daemon_takes() -> None:
    """A request of exactly the frame limit is accepted; a longer one is refused without a trace."""
    embed = Embed(id=1, input=("a text",))
    size = len(request_frame(embed)) - 4
    for limit, refused in ((size, False), (size - 1, True)):
        calls: Calls[Call] = Calls(Limits(max_frame_bytes=limit))
        with pytest.raises(TooLarge, match=f"{size} bytes") if refused else nullcontext():
            calls.add(Call(embed, deadline=0, timeout=0), left=math.inf)
        assert len(calls) == (0 if refused else 1)


def test_a_call_that_is_added_again_has_no_outcome() -> None:
    """Adding a call to another connection clears its outcome."""
    calls, _, (one,) = waiting(1)
    calls.drop_all(ConnectionLost("gone"))
    Calls().add(one, left=1)
    assert one.outcome is None


def test_the_daemon_is_told_how_much_time_is_left() -> None:
    """`timeout_ms` is the remaining time, at least 1, and absent without a limit or for pings."""
    embed = Embed(id=1, input=("a",))
    sent = {left: decode(request_frame(embed, left)[4:]) for left in (2.5, 0.0, float("inf"))}
    assert [message.get("timeout_ms") for message in sent.values()] == [2500, 1, None]
    assert "timeout_ms" not in decode(request_frame(Ping(id=1), 2.5)[4:])


def test_a_full_backlog_is_told_apart_from_success(tmp_path: Path) -> None:
    """Connecting to a daemon with a full backlog raises `BlockingIOError` at once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        with connect(str(tmp_path / "s"), Trust()), pytest.raises(BlockingIOError):
            connect(str(tmp_path / "s"), Trust())


def test_the_error_for_no_daemon_says_what_to_do() -> None:
    """The errors for a missing daemon and a missing permission give different advice."""
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
    """Requests are consecutive slices of at most 256 texts and 4 MiB that cover all texts."""
    slices = list(chunks(tuple(texts)))
    assert [s.stop - s.start for s in slices] == sizes
    assert [text for s in slices for text in texts[s]] == texts


def test_a_frame_that_began_to_leave_is_not_taken_back() -> None:
    """A frame sent in part cannot be withdrawn, since the rest must follow."""
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


def test_frames_leave_whole_and_in_order() -> None:
    """Frames are sent whole and in order despite partial writes, even after a `clear`."""
    here, there = socket.socketpair()
    frames = [bytes([number]) * (100_000 + number) for number in range(8)]
    with here, there:
        here.setblocking(False)
        outbox = Outbox()
        outbox.put(99, b"x" * 5_000_000)
        with pytest.raises(BlockingIOError):
            outbox.flush(here)
        outbox.clear()
        there.setblocking(False)
        while _read(there):
            pass
        for number, frame in enumerate(frames):
            outbox.put(number, frame)
        arrived = b""
        while outbox:
            with suppress(BlockingIOError):
                outbox.flush(here)
            arrived += _read(there)
        assert arrived + _read(there) == b"".join(frames)


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(10_000_000)
    except BlockingIOError:
        return b""


def test_a_frame_is_taken_back_from_between_others() -> None:
    """Frames that have not been sent can be withdrawn from any position."""
    here, there = socket.socketpair()
    with here, there:
        outbox = Outbox()
        for number in (1, 3, 5):
            outbox.put(number, bytes([number]))
        assert outbox.withdraw(3)
        assert outbox.withdraw(1)
        outbox.flush(here)
        assert there.recv(10) == b"\5"
        assert not outbox.withdraw(5)


def test_where_the_daemon_is_looked_for() -> None:
    """The default socket is SIDECAR_SOCKET, then the user's runtime directory, then the host's."""
    chosen, own = {"SIDECAR_SOCKET": "/c/s"}, {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_socket({**own, **chosen}) == Path("/c/s")
    assert default_socket({**own, "SIDECAR_SOCKET": ""}) == Path("/run/user/7/sidecar/sidecar.sock")
    assert default_socket({"XDG_RUNTIME_DIR": ""}) == Path("/run/sidecar/sidecar.sock")


def test_a_sockets_path_has_107_bytes_at_most(tmp_path: Path) -> None:
    """A socket path may have 107 bytes of UTF-8, the kernel's limit."""
    longest = str(tmp_path).ljust(107, "y")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(longest)
        with pytest.raises(OSError, match="too long"):
            listener.bind(longest + "y")
    assert too_long(longest) is None
    assert "108 bytes" in str(too_long(longest + "y"))
    assert "108 bytes" in str(too_long("é" * 54))


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("small", "small", True),
        ("org/small", "small", True),
        ("small", "org/small", True),
        ("org/small", "org/small", True),
        ("org/small", "other/small", False),
        ("small", "large", False),
        ("small@v1", "small@v1", True),
        ("small@v1", "small", True),
        ("small", "org/small@v1", True),
        ("org/small@v2", "org/small@v1", False),
        ("small@v2", "org/small@v1", False),
        ("/m/small", "small", False),
        ("/m/small", "/m/small", True),
        ("./small", "small", False),
        ("~small", "small", False),
        ("a/b/small", "b/small", False),
    ],
)
def test_names_of_one_model(asked: str, served: str, same: bool) -> None:
    """Hub ids match with or without organisation and revision; a path matches only itself."""
    assert is_same(asked, served) is same


def test_what_is_written_as_a_path() -> None:
    """A name with a path prefix or two slashes is a path; a hub id has at most one slash."""
    paths = ["/m", "./m", "../m", "~/m", "a/b/c"]
    assert [is_path(name) for name in paths] == [True] * 5
    assert [is_path(name) for name in ("m", "a/b", "a/b.c@v1")] == [False] * 3


def test_importing_the_client_stays_light() -> None:
    """Importing the client loads neither the daemon nor any model library."""
    program = "import client_lib, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    command = [sys.executable, "-c", program]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    foreign = {m for m in loaded if m not in sys.stdlib_module_names and not m.startswith("_")}
    assert {"msgpack", "numpy", "client_lib"} <= foreign
    assert not foreign & {"torch", "sidecar", "onnxruntime", "tokenizers", "uvloop", "structlog"}
