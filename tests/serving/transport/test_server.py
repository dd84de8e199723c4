import asyncio
import errno
import os
import resource
import socket
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import FrameDecoder, encode
from client_lib.wire.messages import Embed, Hello, Ping, request_to_map
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.context import ServerContext
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle, State
from sidecar.serving.transport import server as server_module
from sidecar.serving.transport.listener import SocketFile
from sidecar.serving.transport.server import Server


@pytest.fixture
async def context(make_engine, tiny, tmp_path):
    settings = ServeSettings(socket=tmp_path / "s.sock", threads=1, max_in_flight=4)
    context = ServerContext(make_engine(tiny()), settings, Lifecycle())
    context.life.move(State.SERVING)
    return context


def serving(context):
    return Server(context, SocketFile.bind(context.settings.socket))


async def connect(context, *requests):
    reader, writer = await asyncio.open_unix_connection(context.settings.socket)
    for request in (Hello(id=0, version=1), *requests):
        writer.write(encode(request_to_map(request)))
    return reader, writer


async def everything(reader):
    async with asyncio.timeout(20):
        return list(FrameDecoder(2**30).feed(await reader.read(-1)))


async def hang_up(writer):
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_leaving_ends_the_sessions_after_their_last_bytes(context, soon):
    """When the server stops, every peer gets its replies and then the end of the stream."""
    async with serving(context):
        peers = [await connect(context, Embed(id=1, input=("a",))) for _ in range(3)]
        await soon(lambda: context.statistics.since_start().completed == 3)
    for reader, writer in peers:
        assert [reply["id"] for reply in await everything(reader)] == [0, 1]
        await hang_up(writer)


async def test_a_peer_that_has_just_connected_is_not_left_open(context, soon):
    """Stopping closes a connection whose session has not taken its first step."""
    async with serving(context) as server:
        reader, writer = await asyncio.open_unix_connection(context.settings.socket)
        await soon(lambda: server._sessions)
    assert await everything(reader) == []
    await hang_up(writer)


async def test_leaving_takes_the_socket_away(context):
    """Stopping removes the socket's file."""
    async with serving(context):
        pass
    assert not context.settings.socket.exists()


async def test_one_bad_peer_does_not_disturb_another(context):
    """A peer that sends garbage loses only its own connection."""
    async with serving(context):
        bad_reader, bad = await connect(context)
        good_reader, good = await connect(context)
        bad.write(b"\xff" * 64)
        assert (await everything(bad_reader))[-1]["ok"] is False
        good.write(encode(request_to_map(Ping(id=1))))
        good.write_eof()
        assert [reply["ok"] for reply in await everything(good_reader)][:1] == [True]
    await hang_up(bad)
    await hang_up(good)


async def test_a_peer_that_does_not_read_cannot_hold_the_daemon(context, soon, monkeypatch):
    """A peer that does not read its last bytes delays a stop only briefly."""
    monkeypatch.setattr("sidecar.serving.transport.writer._LINGER_SECONDS", 0.01)
    greeted = []
    monkeypatch.setattr(context, "hello", lambda _: greeted.append(1) or {"long": "x" * 2**22})
    async with serving(context):
        reader, writer = await connect(context, *(Ping(id=i) for i in range(1, 100)))
        reader._transport.pause_reading()
        await soon(lambda: greeted)
    await hang_up(writer)


async def test_many_that_connect_at_once_are_let_in_bit_by_bit(context, soon, monkeypatch):
    """A burst of connections is accepted in several rounds of the loop."""
    monkeypatch.setattr(server_module, "_MOST_ACCEPTING_SECONDS", 0.0)
    async with serving(context) as server:
        peers = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for peer in peers:
            peer.connect(str(context.settings.socket))
        await asyncio.sleep(0)
        assert len(server._sessions) <= 2
        # A process may have 64; the others are rejected.
        await soon(lambda: context.statistics.since_start().refused == {"overloaded": 36})
        assert sum(peer["connections"] for peer in context.access.to_list()) == 64
        for peer in peers:
            peer.close()
        await soon(lambda: not server._sessions)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (AccessPolicy(max_connections=0), "overloaded"),
        (AccessPolicy(uids=frozenset({os.getuid() + 1})), "forbidden"),
    ],
)
async def test_who_is_turned_away_is_told_why(context, policy, code):
    """A rejected peer gets an error with the reason, and no session."""
    context.access.policy = policy
    async with serving(context) as server:
        reader, writer = await asyncio.open_unix_connection(context.settings.socket)
        (refusal,) = await everything(reader)
        assert refusal["error"]["code"] == code
        assert not server._sessions
        assert context.access.to_list() == []
    await hang_up(writer)


async def test_without_descriptors_the_queue_waits(context, soon, monkeypatch):
    """Without free descriptors, clients wait in the backlog, and one line is logged."""
    monkeypatch.setattr(server_module, "_EXHAUSTED_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as events, socket.socket(socket.AF_UNIX) as peer:
        async with serving(context) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno() + 1, limits[1]))
            taken = []
            try:
                with suppress(OSError):
                    while True:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                peer.connect(str(context.settings.socket))
                await soon(lambda: events)
                for _ in range(5):
                    await asyncio.sleep(0.01)
                assert not server._sessions
            finally:
                for descriptor in taken:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await soon(lambda: server._sessions)
    exhausted = [event for event in events if event["event"] == "server.exhausted"]
    assert [event["reason"] for event in exhausted] == ["Too many open files"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_whatever_a_host_has_too_little_of_is_waited_for(context, soon, monkeypatch, number):
    """If the host is short of a resource, accepting pauses, and one line a minute is logged."""
    monkeypatch.setattr(server_module, "_EXHAUSTED_SECONDS", 0.0)
    accept, failures = server_module._accepted, [OSError(number, "")] * 3

    def failing(listening):
        if failures:
            raise failures.pop()
        return accept(listening)

    monkeypatch.setattr(server_module, "_accepted", failing)
    with capture_logs() as events, socket.socket(socket.AF_UNIX) as peer:
        async with serving(context) as server:
            peer.connect(str(context.settings.socket))
            await soon(lambda: server._sessions)
    reasons = [event["reason"] for event in events if event["event"] == "server.exhausted"]
    assert (reasons, failures) == ([os.strerror(number)], [])


async def test_a_server_that_has_stopped_does_not_listen_again(context, monkeypatch):
    """A server that is stopped while it pauses does not resume accepting."""
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    monkeypatch.setattr(server_module, "_EXHAUSTED_SECONDS", 0.0)
    monkeypatch.setattr(server_module, "_accepted", Mock(side_effect=OSError(errno.EMFILE, "")))
    async with serving(context) as server:
        server._accept()
    for _ in range(10):
        await asyncio.sleep(0)
    assert errors == []


async def test_what_nobody_foresaw_is_not_taken_for_exhaustion(context, monkeypatch):
    """An unexpected error of `accept` is raised."""
    monkeypatch.setattr(server_module, "_accepted", Mock(side_effect=OSError(errno.EBADF, "")))
    async with serving(context) as server:
        with pytest.raises(OSError, match=r"\[Errno 9\]"):
            server._accept()


async def test_the_queue_of_a_server_is_as_long_as_its_socket_s(context, soon):
    """A running server keeps the socket's long backlog, so no client is refused."""
    async with serving(context) as server:
        with ExitStack() as peers:
            for _ in range(400):  # without an iteration of the loop
                peer = peers.enter_context(socket.socket(socket.AF_UNIX))
                peer.setblocking(False)
                peer.connect(str(context.settings.socket))
            await soon(lambda: context.statistics.since_start().refused == {"overloaded": 336})
        await soon(lambda: not server._sessions)


async def test_who_waits_for_a_session_is_counted(context, soon, monkeypatch):
    """A connection counts from the moment it is accepted until its session has ended."""
    for limit in ("_LEAST_ACCEPTING_SECONDS", "_MOST_ACCEPTING_SECONDS"):
        monkeypatch.setattr(server_module, limit, 60.0)
    context.access.policy = AccessPolicy(max_connections=3)
    async with serving(context) as server:
        with ExitStack() as stack:
            peers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(10)]
            for peer in peers:
                peer.connect(str(context.settings.socket))
            server._accept()
            assert len(server._sessions) == 3
            for refused in peers[3:]:
                assert b"this process already has 3 connections" in refused.recv(1_000)
        assert context.statistics.since_start().refused == {"overloaded": 7}
        await soon(lambda: not server._sessions)
        assert context.access.to_list() == []


async def test_who_was_turned_away_comes_in_once_there_is_a_place(context, soon):
    """A process that was rejected is admitted in a later round, once it has fewer connections."""
    context.access.policy = AccessPolicy(max_connections=1)
    async with serving(context) as server:
        with ExitStack() as stack:
            first, second, third = (
                stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)
            )
            first.connect(str(context.settings.socket))
            second.connect(str(context.settings.socket))
            await soon(lambda: context.statistics.since_start().refused == {"overloaded": 1})
            first.close()
            await soon(lambda: not server._sessions)
            third.connect(str(context.settings.socket))
            await soon(lambda: server._sessions)
        await soon(lambda: not server._sessions)
    assert context.statistics.since_start().refused == {"overloaded": 1}


@pytest.mark.parametrize(
    ("since", "accepted"), [(1, 5), (9, 5), (13, 7), (19, 10), (37, 19), (45, 20), (999, 20)]
)
async def test_accepting_has_half_as_much_time_as_all_the_rest(
    context, monkeypatch, since, accepted
):
    """Accepting takes half as long as the rest of the loop, from 0.5 to 2 ms per round."""
    now, tick = 0.0, 0.000_100_1

    def clock():
        nonlocal now
        now += tick
        return now

    monkeypatch.setattr(server_module, "time", SimpleNamespace(perf_counter=clock))
    async with serving(context) as server:
        with ExitStack() as stack:
            for count in (1, 40):
                for _ in range(count):
                    peer = stack.enter_context(socket.socket(socket.AF_UNIX))
                    peer.connect(str(context.settings.socket))
                server._accept()
                now += (since - 1) * tick
            assert len(server._sessions) == 1 + accepted


async def test_who_has_left_again_has_no_session(context, soon):
    """A peer that has already left gets no session and is not counted."""
    with capture_logs() as events:
        async with serving(context) as server:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(context.settings.socket))
            server._accept()
            assert context.access.to_list() == []
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(context.settings.socket))
                server._accept()
            assert sum(each["connections"] for each in context.access.to_list()) == 1
            await soon(lambda: context.access.to_list() == [])
    assert "peer.connected" not in [event["event"] for event in events]
