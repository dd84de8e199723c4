"""Whole daemons: most in a process of their own, since signals and exit codes are theirs."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path
from unittest.mock import Mock

import pytest

from client_lib.wire.messages import Embed, Hello, Status
from client_lib.wire.protocol import ClientConnection
from sidecar.serving.process import lifecycle
from sidecar.serving.process.lifecycle import serve
from sidecar.serving.settings import ServeSettings, Setup
from sidecar.serving.transport.listener import SocketFile, SocketUnavailable
from sidecar.systemd import take

pytestmark = pytest.mark.slow

HERE = Path(__file__)
PATIENCE = 30


def daemon(path, drain_seconds, load_seconds, reload_seconds):
    """What a daemon's process runs: the small model, whose texts with "#" never end.

    With `TAKES_NOTHING` in the environment its threads take no row.
    """
    import importlib.util
    import time
    from functools import partial

    from sidecar import events
    from sidecar.serving.process.lifecycle import run
    from sidecar.serving.scheduler.worker_pool import WorkerPool
    from sidecar.serving.settings import Setup

    spec = importlib.util.spec_from_file_location("small", HERE.parents[1] / "conftest.py")
    small = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(small)
    events.configure()
    if "TAKES_NOTHING" in os.environ:
        WorkerPool._take = lambda _: None

    def load(seconds):
        sys.stdout.write('{"event": "test.loading"}\n')
        sys.stdout.flush()
        time.sleep(seconds)
        model = small.TinyModel(holds="#")
        model.gate.clear()
        return [model]

    settings = ServeSettings(socket=Path(path), threads=1, drain_seconds=drain_seconds)
    if "LISTEN_FDS" in os.environ:  # as a service manager does it, which knows the child's pid
        os.environ["LISTEN_PID"] = str(os.getpid())
    first, later = (
        Setup(load=partial(load, seconds), settings=settings)
        for seconds in (load_seconds, reload_seconds)
    )
    sys.exit(run(first, lambda: later, take()))


class Process:
    """A daemon's process: its events as they come, its exit code."""

    def __init__(
        self,
        path,
        *,
        drain_seconds=PATIENCE,
        load_seconds=0,
        reload_seconds=0,
        listener=None,
        terminal=None,
        **environ,
    ):
        self.path = path
        arguments = map(str, (path, drain_seconds, load_seconds, reload_seconds))
        root = str(HERE.parents[3])
        passed = listener and {
            "preexec_fn": lambda: (os.dup2(listener.fileno(), 3), os.set_inheritable(3, True)),
            "close_fds": False,
        }
        if terminal is not None:  # of a session of its own, which takes it as its terminal
            passed = {
                "start_new_session": True,
                "preexec_fn": lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
            }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), *arguments],
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": root,
                **environ,
                **({"LISTEN_FDS": "1"} if listener else {}),
            },
            **(passed or {}),
        )
        self.signal = self._process.send_signal

    def event(self, name):
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == name:
                return event
        raise AssertionError(f"the daemon ended before {name}")

    def shrink_output(self):
        """Let a few lines fill the pipe that is the daemon's standard output."""
        fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, 4096)

    def exit_code(self):
        return self._process.wait(PATIENCE)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class Peer:
    """A blocking client."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._connection = ClientConnection()
        self.send(Hello(id=0, version=1))
        self.reply()

    def send(self, request):
        self._socket.sendall(self._connection.send(request))

    def ask(self, request):
        self.send(request)
        return self.reply()

    def reply(self):
        while data := self._socket.recv(2**16):
            for reply in self._connection.receive(data):
                return reply
        return None

    def close(self):
        self._socket.close()


@pytest.fixture
def closing():
    opened = []

    def register(thing):
        opened.append(thing)
        return thing

    yield register
    for thing in reversed(opened):
        thing.close()


@pytest.fixture
def start(tmp_path, closing):
    def start(**options):
        return closing(Process(tmp_path / "s.sock", **options))

    return start


def unasked():
    """Where nobody asks for a reload."""
    raise AssertionError("the configuration was read again")


def embed(request_id, text):
    return Embed(id=request_id, input=(text,))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(start, closing, number):
    """What was answered is answered; the socket is gone; the last event says 0."""
    process = start()
    process.event("server.listening")
    peer = closing(Peer(process.path))
    peer.send(embed(1, "abc"))
    assert peer.reply().error is None
    process.signal(number)
    assert process.event("server.draining")["reason"] == number.name
    assert process.event("server.stopped")["exit_code"] == 0
    assert process.exit_code() == 0
    assert not process.path.exists()
    assert peer.reply() is None


def test_events_that_nobody_reads_hold_nobody_up(start, closing):
    """Requests are answered, and a signal ends the daemon, though its standard output is full."""
    process = start()
    process.event("server.listening")
    process.shrink_output()
    peer = closing(Peer(process.path))
    for request_id in range(1, 100):
        assert peer.ask(embed(request_id, "abc")).error is None
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_draining_daemon_refuses_what_is_new(start, closing):
    """On old connections with `draining`; new connections find no socket."""
    process = start()
    process.event("server.listening")
    peer = closing(Peer(process.path))
    peer.send(embed(1, "#"))
    peer.send(embed(2, "#"))
    process.signal(signal.SIGTERM)
    process.event("server.draining")
    peer.send(embed(3, "abc"))
    reply = peer.reply()
    assert (reply.id, reply.error.code) == (3, "draining")
    assert not process.path.exists()


def test_a_second_signal_forces(start, closing):
    """At once, though a forward runs that never ends."""
    process = start()
    process.event("server.listening")
    closing(Peer(process.path)).send(embed(1, "#"))
    process.signal(signal.SIGTERM)
    process.event("server.draining")
    process.signal(signal.SIGTERM)
    assert process.event("server.stopped")["exit_code"] == 1
    assert process.exit_code() == 1
    assert not process.path.exists()


def test_a_drain_that_takes_too_long_is_forced(start, closing):
    """The deadline counts for requests and threads alike."""
    process = start(drain_seconds=0.05)
    process.event("server.listening")
    peer = closing(Peer(process.path))
    peer.send(embed(1, "#"))
    process.signal(signal.SIGTERM)
    assert process.event("server.stopped")["exit_code"] == 1
    assert process.exit_code() == 1


def test_a_peer_that_does_not_read_cannot_force_a_stop(start, closing):
    """What was computed for it is waited for a moment, however long a drain may take."""
    process = start(drain_seconds=86_400)
    process.event("server.listening")
    peer = closing(Peer(process.path))
    for number in range(1, 20):  # of which the kernel keeps three
        peer.send(Embed(id=number, input=("a",) * 2_000))
    other = closing(Peer(process.path))
    while other.ask(Status(id=1)).body["status"]["requests"]["untaken"] < 2:
        pass
    process.signal(signal.SIGTERM)
    assert process.event("server.drained")["untaken"] > 0
    assert process.event("server.stopped")["exit_code"] == 0
    assert process.exit_code() == 0


def test_a_signal_while_loading_ends_the_daemon(start):
    """Loading is not waited for; nothing was accepted, so nothing is lost."""
    process = start(load_seconds=PATIENCE)
    process.event("test.loading")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_signal_while_reloading_drains(start, closing):
    """What was accepted is answered, and the models that still load are not waited for."""
    process = start(reload_seconds=10 * PATIENCE)
    process.event("server.listening")
    peer = closing(Peer(process.path))
    process.signal(signal.SIGHUP)
    process.event("test.loading")
    peer.send(embed(1, "abc"))
    assert peer.reply().error is None
    process.signal(signal.SIGTERM)
    assert process.event("server.stopped")["exit_code"] == 0
    assert process.exit_code() == 0
    assert not process.path.exists()


def test_a_closed_terminal_ends_the_daemon(start):
    """It says SIGHUP, too, but nobody is left who could have asked for a reload."""
    ours, theirs = os.openpty()
    process = start(terminal=theirs)
    os.close(theirs)
    process.event("server.listening")
    process.signal(signal.SIGHUP)
    process.event("server.reloaded")
    os.close(ours)
    assert "terminal" in process.event("server.draining")["reason"]
    assert process.exit_code() == 0


def test_a_hangup_while_loading_is_done_afterwards(start):
    """It ends nothing: what is configured now is loaded once more."""
    process = start(load_seconds=1)
    process.event("test.loading")
    process.signal(signal.SIGHUP)
    process.event("server.listening")
    process.event("server.reloaded")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_crash_of_inference_ends_the_daemon(start, closing):
    """The callers are told, an event says why, and the exit code is not 0."""
    process = start()
    process.event("server.listening")
    peer = closing(Peer(process.path))
    peer.send(embed(1, "a~"))
    reply = peer.reply()
    assert reply.error.code == "backend_failed"
    event = process.event("worker.crashed")
    assert event["error"] == "SystemExit"
    assert process.exit_code() == 70


def test_a_hung_forward_ends_the_daemon(start, closing, tmp_path):
    """Nothing can interrupt it; the manager is told that all is well only before."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        process = start(NOTIFY_SOCKET=manager.getsockname(), WATCHDOG_USEC="1000000")
        process.event("server.listening")
        while manager.recv(1024) != b"WATCHDOG=1":
            pass
        closing(Peer(process.path)).send(embed(1, "#"))
        event = process.event("worker.hung")
        assert event["seconds"] >= 0.5
        assert "does not come to its end" in event["reason"]
        assert process.exit_code() == 70


def test_a_queue_that_does_not_move_ends_the_daemon(start, closing, tmp_path):
    """Nothing is computed, so nothing hangs there; but a request waits, and clients ask again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
        process = start(TAKES_NOTHING="1", **environ)
        process.event("server.listening")
        closing(Peer(process.path)).send(embed(1, "abc"))
        event = process.event("worker.hung")
    assert event["seconds"] >= 0.5
    assert "none is begun" in event["reason"]
    assert process.exit_code() == 70


async def test_accepted_work_is_finished(tmp_path, tiny, soon):
    """The daemon drains for as long as a request runs, and ends with 0 once it is answered.

    Meanwhile it says so to those who are there, and takes on nothing.
    """
    model = tiny(holds="#")
    model.gate.clear()
    settings = ServeSettings(socket=tmp_path / "s.sock", threads=1)
    serving = asyncio.create_task(serve(Setup(load=lambda: [model], settings=settings), unasked))
    reader, writer = await connected(settings.socket)
    connection, replies = ClientConnection(), {}

    async def ask(request):
        writer.write(connection.send(request))
        while request.id not in replies and (data := await reader.read(2**16)):
            replies.update((reply.id, reply) for reply in connection.receive(data))
        return replies.get(request.id)

    await ask(Hello(id=0, version=1))
    writer.write(connection.send(embed(1, "#")))
    await model.began(forwards=9)  # eight of them before it listened
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(lambda: not settings.socket.exists())
    # A status is made on a thread, the second after a pause: a drain that does not wait is over.
    told = [await ask(Status(id=number)) for number in (2, 3)]
    refused = await ask(embed(4, "new"))
    model.gate.set()
    replies.update((reply.id, reply) for reply in connection.receive(await reader.read(-1)))
    assert await serving == 0
    assert 1 in replies
    assert replies[1].error is None
    told = [reply and reply.body["status"] for reply in told]
    assert [status and status["state"] for status in told] == ["draining"] * 2
    assert [status["requests"]["in_flight"] for status in told] == [1, 1]
    assert refused.error.code == "draining"
    writer.close()
    await writer.wait_closed()


async def connected(path):
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(0)


@pytest.fixture
def listening(tmp_path):
    """A listening socket such as a service manager holds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen(64)
        yield listener


def test_a_passed_socket_refuses_nobody(start, closing, listening):
    """Who connects before the first daemon, or between two, is answered by the next."""
    early = closing(Waiting(listening.getsockname()))
    first = start(listener=listening)
    first.event("server.listening")
    assert early.answer() == 1
    first.signal(signal.SIGKILL)
    first.exit_code()
    between = closing(Waiting(listening.getsockname()))
    second = start(listener=listening)
    assert between.answer() == 1
    second.signal(signal.SIGTERM)
    assert second.exit_code() == 0
    late = closing(Waiting(listening.getsockname()))  # the file is still there, and so is its queue
    start(listener=listening)
    assert late.answer() == 1


class Waiting:
    """A client that has sent a request to a socket that nobody may be serving yet."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._connection = ClientConnection()
        for request in (Hello(id=0, version=1), embed(1, "abc")):
            self._socket.sendall(self._connection.send(request))

    def answer(self):
        """Return the id of the embed's answer; whatever came before it is let go."""
        while data := self._socket.recv(2**16):
            for reply in self._connection.receive(data):
                assert reply.error is None
                if reply.id:
                    return reply.id
        raise AssertionError("the connection was closed")

    def close(self):
        self._socket.close()


def test_the_service_manager_is_told_how_far_things_are(start, tmp_path):
    """More time while loading, READY once requests are answered, STOPPING with the drain."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        process = start(NOTIFY_SOCKET=manager.getsockname())
        assert manager.recv(1024).startswith(b"STATUS=Loading models\nEXTEND_TIMEOUT_USEC=")
        assert manager.recv(1024) == b"READY=1\nSTATUS=Serving tiny"
        Peer(process.path).close()  # READY is not too early
        process.signal(signal.SIGTERM)
        assert manager.recv(1024) == b"STOPPING=1\nSTATUS=Finishing 0 requests"
        assert process.exit_code() == 0


async def test_a_taken_socket_is_known_before_loading(tmp_path, tiny):
    """No model is read for nothing."""
    path = tmp_path / "s.sock"
    listener = SocketFile.bind(path)
    settings = ServeSettings(socket=path, threads=1)
    with pytest.raises(SocketUnavailable):
        await serve(Setup(load=lambda: pytest.fail("loaded"), settings=settings), unasked)
    listener.socket.close()


async def test_a_path_that_cannot_be_a_socket_s_is_known_before_loading():
    """It is too long, or in a folder that cannot be written."""
    for path in (Path("/tmp") / ("x" * 110), Path("/proc/self/none/s")):
        settings = ServeSettings(socket=path, threads=1)
        with pytest.raises(SocketUnavailable):
            await serve(Setup(load=lambda: pytest.fail("loaded"), settings=settings), unasked)


async def test_what_loading_raises_reaches_the_caller(tmp_path):
    """The command decides how to put it; no socket was made."""
    path = tmp_path / "s.sock"
    settings = ServeSettings(socket=path, threads=1)
    with pytest.raises(ZeroDivisionError):
        await serve(Setup(load=lambda: 1 // 0, settings=settings), unasked)
    assert not path.exists()


@pytest.fixture
async def watched(monkeypatch):
    """A daemon's watch over a context whose inference has stood still for so many seconds.

    Returns what the manager was told, for how long the watch slept, and the exit code, if any.
    """

    async def watch(*stuck_for, watchdog_seconds, hang_seconds=30.0):
        left, slept, exits = list(stuck_for), [], []

        async def sleep(seconds):
            slept.append(seconds)
            if not left:
                raise asyncio.CancelledError

        def leave(code):
            exits.append(code)
            raise asyncio.CancelledError

        monkeypatch.setattr(lifecycle.asyncio, "sleep", sleep)
        manager = Mock(watchdog_seconds=watchdog_seconds)
        daemon = lifecycle._Daemon(unasked, manager)
        daemon._leave = leave
        settings = ServeSettings(socket=Path("unused"), threads=1, hang_seconds=hang_seconds)
        context = Mock(
            settings=settings, stuck_for=lambda: left.pop(0), longest_forward=lambda: 0.0
        )
        with pytest.raises(asyncio.CancelledError):
            await daemon._watch(context)
        monkeypatch.undo()
        return [each.kwargs for each in manager.notify.call_args_list], slept, exits

    return watch


async def test_the_watchdog_is_fed_while_there_is_progress(watched):
    """Four times in its own time; half of that without progress is the end."""
    told, slept, exits = await watched(0.0, 1.9, 0.0, watchdog_seconds=4.0)
    assert (told, slept, exits) == ([{"WATCHDOG": 1}] * 3, [1.0] * 3, [])
    told, slept, exits = await watched(0.0, 2.0, watchdog_seconds=4.0)
    assert (told, slept, exits) == ([{"WATCHDOG": 1}], [1.0], [70])


@pytest.mark.parametrize(("code", "exits"), [(0, 1), (70, 70)])
async def test_what_takes_too_long_to_end_is_forced(code, exits):
    """A crash before is what the exit code tells of; what ends in time is left alone."""
    daemon = lifecycle._Daemon(unasked, Mock())
    daemon._exit_code = code
    daemon._leave = Mock()
    await daemon._in_time(asyncio.sleep(0))
    daemon._deadline = asyncio.get_running_loop().time() + 86_400
    await daemon._in_time(asyncio.sleep(0))
    daemon._leave.assert_not_called()
    daemon._deadline = asyncio.get_running_loop().time() - 1
    await daemon._in_time(asyncio.Event().wait())
    daemon._leave.assert_called_once_with(exits)


async def test_without_a_watchdog_a_daemon_ends_itself_in_its_own_time(watched):
    """Nobody is told before."""
    assert await watched(0.0, 5.9, watchdog_seconds=None, hang_seconds=6.0) == ([], [3.0] * 2, [])
    assert await watched(6.0, watchdog_seconds=None, hang_seconds=6.0) == ([], [], [70])


if __name__ == "__main__":
    daemon(sys.argv[1], *map(float, sys.argv[2:]))
