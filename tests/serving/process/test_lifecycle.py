"""Whole daemons, most in processes of their own because of signals and exit codes."""

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
    """Run a daemon with the small model; forwards of texts with "#" never finish.

    With `TAKES_NOTHING` in the environment, its threads never take a row.
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
    if "LISTEN_FDS" in os.environ:  # as set by a service manager, which knows the child's pid
        os.environ["LISTEN_PID"] = str(os.getpid())
    first, later = (
        Setup(load=partial(load, seconds), settings=settings)
        for seconds in (load_seconds, reload_seconds)
    )
    sys.exit(run(first, lambda: later, take()))


class Process:
    """A daemon's process, its events and its exit code."""

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
        if terminal is not None:  # a session of its own, with this as its controlling terminal
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
        """Shrink the pipe of the daemon's standard output, so that a few lines fill it."""
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
    """The `configure` of a daemon that must not reload."""
    raise AssertionError("the configuration was read again")


def embed(request_id, text):
    return Embed(id=request_id, input=(text,))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(start, closing, number):
    """SIGTERM and SIGINT drain the daemon, remove its socket and end it with exit code 0."""
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
    """A daemon whose standard output is full still answers requests and stops on a signal."""
    process = start()
    process.event("server.listening")
    process.shrink_output()
    peer = closing(Peer(process.path))
    for request_id in range(1, 100):
        assert peer.ask(embed(request_id, "abc")).error is None
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_draining_daemon_refuses_what_is_new(start, closing):
    """A draining daemon rejects new requests with `draining` and has removed its socket."""
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
    """A second signal ends the daemon at once, even while a forward runs."""
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
    """A drain that exceeds `drain_seconds` is forced, with exit code 1."""
    process = start(drain_seconds=0.05)
    process.event("server.listening")
    peer = closing(Peer(process.path))
    peer.send(embed(1, "#"))
    process.signal(signal.SIGTERM)
    assert process.event("server.stopped")["exit_code"] == 1
    assert process.exit_code() == 1


def test_a_peer_that_does_not_read_cannot_force_a_stop(start, closing):
    """A peer that does not read its replies delays a stop only briefly and cannot force it."""
    process = start(drain_seconds=86_400)
    process.event("server.listening")
    peer = closing(Peer(process.path))
    for number in range(1, 20):  # the kernel buffers three of them
        peer.send(Embed(id=number, input=("a",) * 2_000))
    other = closing(Peer(process.path))
    while other.ask(Status(id=1)).body["status"]["requests"]["untaken"] < 2:
        pass
    process.signal(signal.SIGTERM)
    assert process.event("server.drained")["untaken"] > 0
    assert process.event("server.stopped")["exit_code"] == 0
    assert process.exit_code() == 0


def test_a_signal_while_loading_ends_the_daemon(start):
    """A signal while models load ends the daemon at once, with exit code 0."""
    process = start(load_seconds=PATIENCE)
    process.event("test.loading")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_signal_while_reloading_drains(start, closing):
    """A signal during a reload drains the daemon without waiting for the new models."""
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
    """SIGHUP because its terminal was closed stops the daemon instead of reloading it."""
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
    """SIGHUP while models load causes a reload afterwards, and ends nothing."""
    process = start(load_seconds=1)
    process.event("test.loading")
    process.signal(signal.SIGHUP)
    process.event("server.listening")
    process.event("server.reloaded")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_crash_of_inference_ends_the_daemon(start, closing):
    """A crash of inference fails its request, is logged, and ends the daemon with code 70."""
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
    """A forward that hangs ends the daemon, and stops it from feeding the watchdog."""
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
        assert "does not finish" in event["reason"]
        assert process.exit_code() == 70


def test_a_queue_that_does_not_move_ends_the_daemon(start, closing, tmp_path):
    """A request that waits while no row is started counts as a hang and ends the daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
        process = start(TAKES_NOTHING="1", **environ)
        process.event("server.listening")
        closing(Peer(process.path)).send(embed(1, "abc"))
        event = process.event("worker.hung")
    assert event["seconds"] >= 0.5
    assert "none is started" in event["reason"]
    assert process.exit_code() == 70


async def test_accepted_work_is_finished(tmp_path, tiny, soon):
    """A drain waits for running requests, and the daemon exits with 0 once they are answered.

    Meanwhile it answers `status` with `draining`, and rejects new requests.
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
    await model.began(forwards=9)  # eight of them are calibration
    os.kill(os.getpid(), signal.SIGTERM)
    await soon(lambda: not settings.socket.exists())
    # A status takes a thread, and the second a pause: enough for a drain that does not wait to end.
    replies_to_status = [await ask(Status(id=number)) for number in (2, 3)]
    refused = await ask(embed(4, "new"))
    model.gate.set()
    replies.update((reply.id, reply) for reply in connection.receive(await reader.read(-1)))
    assert await serving == 0
    assert 1 in replies
    assert replies[1].error is None
    statuses = [reply and reply.body["status"] for reply in replies_to_status]
    assert [status and status["state"] for status in statuses] == ["draining"] * 2
    assert [status["requests"]["in_flight"] for status in statuses] == [1, 1]
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
    """A listening socket, as a service manager would hold it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen(64)
        yield listener


def test_a_passed_socket_refuses_nobody(start, closing, listening):
    """With a passed socket, clients that connect between daemons are answered by the next one."""
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
    late = closing(Waiting(listening.getsockname()))  # the file and its backlog still exist
    start(listener=listening)
    assert late.answer() == 1


class Waiting:
    """A client that has sent a request to a socket that may not be served yet."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._connection = ClientConnection()
        for request in (Hello(id=0, version=1), embed(1, "abc")):
            self._socket.sendall(self._connection.send(request))

    def answer(self):
        """Return the id of the reply to the embed request, skipping earlier replies."""
        while data := self._socket.recv(2**16):
            for reply in self._connection.receive(data):
                assert reply.error is None
                if reply.id:
                    return reply.id
        raise AssertionError("the connection was closed")

    def close(self):
        self._socket.close()


def test_the_service_manager_is_told_how_far_things_are(start, tmp_path):
    """The service manager is asked for time while loading, then notified READY and STOPPING."""
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
    """If another daemon listens at the path, no model is loaded."""
    path = tmp_path / "s.sock"
    listener = SocketFile.bind(path)
    settings = ServeSettings(socket=path, threads=1)
    with pytest.raises(SocketUnavailable):
        await serve(Setup(load=lambda: pytest.fail("loaded"), settings=settings), unasked)
    listener.socket.close()


async def test_a_path_that_cannot_be_a_socket_s_is_known_before_loading():
    """If the path is too long or its folder is not writable, no model is loaded."""
    for path in (Path("/tmp") / ("x" * 110), Path("/proc/self/none/s")):
        settings = ServeSettings(socket=path, threads=1)
        with pytest.raises(SocketUnavailable):
            await serve(Setup(load=lambda: pytest.fail("loaded"), settings=settings), unasked)


async def test_what_loading_raises_reaches_the_caller(tmp_path):
    """An exception while loading reaches the caller, and no socket is created."""
    path = tmp_path / "s.sock"
    settings = ServeSettings(socket=path, threads=1)
    with pytest.raises(ZeroDivisionError):
        await serve(Setup(load=lambda: 1 // 0, settings=settings), unasked)
    assert not path.exists()


@pytest.fixture
async def watched(monkeypatch):
    """A function that runs a daemon's watch loop over a series of `stuck_for` times.

    It returns the notifications to the manager, the times slept, and the exit codes.
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
    """The watchdog is fed four times per timeout; half of it without progress ends the daemon."""
    notified, slept, exits = await watched(0.0, 1.9, 0.0, watchdog_seconds=4.0)
    assert (notified, slept, exits) == ([{"WATCHDOG": 1}] * 3, [1.0] * 3, [])
    notified, slept, exits = await watched(0.0, 2.0, watchdog_seconds=4.0)
    assert (notified, slept, exits) == ([{"WATCHDOG": 1}], [1.0], [70])


@pytest.mark.parametrize(("code", "exits"), [(0, 1), (70, 70)])
async def test_what_takes_too_long_to_end_is_forced(code, exits):
    """A step that exceeds the drain's deadline forces an exit, with a crash's code if any."""
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
    """Without a watchdog, the daemon exits after `hang_seconds`, and notifies nobody."""
    assert await watched(0.0, 5.9, watchdog_seconds=None, hang_seconds=6.0) == ([], [3.0] * 2, [])
    assert await watched(6.0, watchdog_seconds=None, hang_seconds=6.0) == ([], [], [70])


if __name__ == "__main__":
    daemon(sys.argv[1], *map(float, sys.argv[2:]))
