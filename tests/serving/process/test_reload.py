"""SIGHUP to a daemon in this process: what is swapped, what stays, and what is released."""

import asyncio
import os
import resource
import signal
import socket
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import FrameDecoder
from client_lib.wire.messages import Embed, Hello, Status
from client_lib.wire.protocol import ClientConnection, Limits
from sidecar.events import Selection
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.context import ServerContext
from sidecar.serving.process.lifecycle import serve
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings, Setup
from sidecar.serving.state import Lifecycle
from sidecar.systemd import Manager

from ..conftest import PATIENCE, TinyModel


class Talk:
    """A client's connection, without the client library."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._connection = ClientConnection()
        self._decoder = FrameDecoder(2**30)
        self._replies = {}

    def send(self, request):
        self._writer.write(self._connection.send(request))

    async def reply(self, request_id):
        async with asyncio.timeout(PATIENCE):
            while request_id not in self._replies:
                data = await self._reader.read(2**16)
                assert data, "the connection was closed"
                self._replies |= {reply["id"]: reply for reply in self._decoder.feed(data)}
        return self._replies.pop(request_id)

    async def ask(self, request):
        self.send(request)
        return await self.reply(request.id)

    async def ended(self):
        async with asyncio.timeout(PATIENCE):
            assert await self._reader.read() == b""

    async def close(self):
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


class Service:
    """`serve` as a task of the test; the next reload gets `setup`.

    If `refuses` is set, the reload gets that exception instead. `read` counts the reloads.
    """

    def __init__(self, setup, manager):
        self.setup = setup
        self.path = setup.settings.socket
        self.refuses = None
        self.read = 0
        self.task = asyncio.create_task(serve(setup, self._configure, manager))
        self._talks = []

    def _configure(self):
        self.read += 1
        if self.refuses:
            raise self.refuses
        return self.setup

    async def talk(self):
        """Return a connection that has exchanged hello, and the reply to it."""
        async with asyncio.timeout(PATIENCE):
            while not self.path.exists():  # noqa: ASYNC110 - the file has no event
                await asyncio.sleep(0.001)
        talk = Talk(*await asyncio.open_unix_connection(self.path))
        self._talks.append(talk)
        return talk, await talk.ask(Hello(id=0, version=1))

    async def stop(self):
        """Stop the daemon and return its exit code."""
        if not self.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            exit_code = await self.task
        for talk in self._talks:
            await talk.close()
        return exit_code


def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.fixture
def log():
    with capture_logs() as events:
        yield events


@pytest.fixture
def seen(log, soon):
    """A function that waits for `times` events of a name and returns the last one."""

    async def wait(name, times=1):
        def found():
            return [event for event in log if event["event"] == name]

        await soon(lambda: len(found()) >= times)
        return found()[-1]

    return wait


@pytest.fixture(autouse=True)
def walks_through_memory(monkeypatch):
    """Disable garbage collection, which is slow after many tests; `undo` enables it again."""
    with monkeypatch.context() as patch:
        patch.setattr("sidecar.serving.process.heap.gc", Mock())
        yield patch


@pytest.fixture
def setup_of(tmp_path):
    def make(*models, configured=None, **settings):
        everything = {"socket": tmp_path / "s.sock", "threads": 1, **settings}
        return Setup(
            load=lambda: list(models),
            settings=ServeSettings(**everything),
            configured=configured or {},
        )

    return make


@pytest.fixture
async def start(seen, monkeypatch):
    """A factory of listening services; at the end, each has to stop with 0, unforced."""
    made = []
    monkeypatch.setattr(os, "_exit", Mock(side_effect=AssertionError("left by force")))

    async def start(setup, manager=None):
        service = Service(setup, manager or Manager())
        made.append(service)
        await seen("server.listening")
        return service

    yield start
    for service in made:
        assert await service.stop() == 0


async def test_what_was_accepted_is_finished_by_the_old_model(start, setup_of, tiny, seen):
    """The old model finishes its requests; later ones, on any connection, use the new model."""
    old = tiny(name="old", holds="#")
    service = await start(setup_of(old))
    talk, _ = await service.talk()
    old.gate.clear()
    talk.send(Embed(id=1, input=("#",)))
    await old.began(forwards=9)  # eight of them are calibration
    service.setup = setup_of(tiny(name="new"))
    hang_up()
    await seen("server.reloaded")
    assert (await talk.ask(Embed(id=2, input=("a",))))["model"] == "new"
    other, _ = await service.talk()
    assert (await other.ask(Embed(id=1, input=("a",))))["model"] == "new"
    assert (await talk.ask(Embed(id=3, input=("a",), model="old")))["error"]["code"] == (
        "unknown_model"
    )
    old.gate.set()
    assert (await talk.reply(1))["model"] == "old"
    assert (await seen("engine.retired"))["models"] == ["old"]


@pytest.mark.slow
async def test_models_that_no_longer_serve_are_let_go_of(
    start, setup_of, seen, walks_through_memory
):
    """Replaced models are freed, including the first ones, which were frozen at startup."""
    walks_through_memory.undo()
    loaded = []

    def load():
        model = TinyModel(name=str(len(loaded)))
        loaded.append(weakref.ref(model))
        return [model]

    service = await start(replace(setup_of(), load=load))
    talk, _ = await service.talk()
    for i in range(1, 4):
        await talk.ask(Embed(id=i, input=("a", "b")))
        hang_up()
        await seen("engine.retired", times=i)
    assert [model() and model().name for model in loaded] == [None, None, None, "3"]


async def test_two_generations_of_models_take_memory_at_most(start, setup_of, tiny, seen):
    """A reload waits until the last but one engine has finished before it loads models."""
    old = tiny(name="old", holds="#")
    service = await start(setup_of(old))
    talk, _ = await service.talk()
    old.gate.clear()
    talk.send(Embed(id=1, input=("#",)))
    await old.began(forwards=9)
    service.setup = setup_of(tiny(name="new"))
    hang_up()
    await seen("server.reloaded")
    hang_up()
    await seen("server.reloading", times=2)
    for number in range(2, 5):  # each takes a thread, which loading would have taken first
        assert (await talk.ask(Status(id=number)))["status"]["state"] == "reloading"
    assert service.read == 1
    old.gate.set()
    await seen("server.reloaded", times=2)
    assert service.read == 2
    await seen("engine.retired", times=2)


async def test_a_reload_changes_what_is_configured_and_keeps_what_was_counted(
    start, setup_of, tiny, seen, monkeypatch
):
    """A reload changes queue limits, cache size and event selection, and keeps statistics."""
    selected = []
    monkeypatch.setattr("sidecar.events.select", selected.append)
    sizes = {"cache_bytes": 2**20, "bounds": QueueLimits(rows=500)}
    service = await start(setup_of(tiny(name="old"), **sizes))
    talk, _ = await service.talk()
    await talk.ask(Embed(id=1, input=("a",)))
    first = (await talk.ask(Status(id=2)))["status"]
    selection = Selection(level="warning")
    sizes = {"cache_bytes": 2**21, "bounds": QueueLimits(rows=700), "selection": selection}
    service.setup = setup_of(tiny(name="new"), **sizes)
    hang_up()
    await seen("engine.retired")
    await talk.ask(Embed(id=3, input=("b",)))
    second = (await talk.ask(Status(id=4)))["status"]
    assert [each["cache"]["max_bytes"] for each in (first, second)] == [2**20, 2**21]
    assert [each["queue"]["bounds"]["rows"] for each in (first, second)] == [500, 700]
    assert [each["requests"]["completed"] for each in (first, second)] == [1, 2]
    assert [model["name"] for model in second["models"]] == ["new"]
    assert selected == [selection]


async def test_a_passed_socket_is_where_the_daemon_is(setup_of, tiny, start, seen, tmp_path):
    """A passed socket is used whatever is configured, and its file is left to the manager."""
    path = tmp_path / "passed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        service = await start(setup_of(tiny()), Manager(listener=listener))
        service.path = path
        talk, _ = await service.talk()
        service.setup = setup_of(tiny(), socket=tmp_path / "other.sock")
        hang_up()
        assert (await seen("server.reloaded"))["changed"] == []
        assert (await talk.ask(Status(id=1)))["status"]["socket"] == str(path)
        assert await service.stop() == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["passed.sock"]


async def test_a_daemon_may_open_as_many_files_as_the_system_lets_it(start, setup_of, tiny):
    """The daemon raises its own limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_000), hard))
    try:
        await start(setup_of(tiny()))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("where", ["configure", "load", "calibrate_cost"])
async def test_what_cannot_be_loaded_leaves_everything_as_it_was(
    start, setup_of, tiny, seen, where
):
    """A failed reload, whether in configuring, loading or calibrating, changes nothing."""
    service = await start(setup_of(tiny(name="old")))
    talk, _ = await service.talk()
    error = ValueError("SIDECAR_THREADS=many: must be a whole number")
    broken = tiny(name="new")
    broken.forward = broken.tokenize = None
    service.setup = {
        "configure": service.setup,
        "load": replace(service.setup, load=lambda: 1 // 0),
        "calibrate_cost": setup_of(broken),
    }[where]
    service.refuses = error if where == "configure" else None
    hang_up()
    failure = await seen("server.reload_failed")
    assert failure["error"] == {
        "configure": "ValueError", "load": "ZeroDivisionError", "calibrate_cost": "TypeError",
    }[where]  # fmt: skip
    assert (await talk.ask(Embed(id=1, input=("a",))))["model"] == "old"
    service.refuses, service.setup = None, setup_of(tiny(name="new"))
    hang_up()
    await seen("server.reloaded")
    assert (await talk.ask(Embed(id=2, input=("a",))))["model"] == "new"


async def test_signals_during_a_reload_make_one_more(start, setup_of, tiny, seen):
    """Signals during a reload cause exactly one more; `status` reports `reloading` meanwhile."""
    service = await start(setup_of(tiny(name="old")))
    talk, _ = await service.talk()
    loading, go_on = threading.Event(), threading.Event()

    def load():
        loading.set()
        assert go_on.wait(PATIENCE)
        return [tiny(name="new")]

    service.setup = replace(service.setup, load=load)
    hang_up()
    await asyncio.to_thread(loading.wait, PATIENCE)
    for i in range(1, 4):
        hang_up()
        status = (await talk.ask(Status(id=i)))["status"]
        assert (status["state"], status["healthy"]) == ("reloading", True)
    assert (await talk.ask(Embed(id=4, input=("a",))))["model"] == "old"
    go_on.set()
    await seen("server.reloaded", times=2)
    await seen("engine.retired", times=2)
    assert (await talk.ask(Status(id=5)))["status"]["state"] == "serving"
    assert service.read == 2


async def test_a_crash_of_the_old_engine_ends_the_daemon(start, setup_of, tiny, seen):
    """A crash of the retiring engine ends the daemon, like any other crash."""
    old = tiny(name="old", holds="#")
    service = await start(setup_of(old))
    talk, _ = await service.talk()
    old.gate.clear()
    talk.send(Embed(id=1, input=("#~",)))
    await old.began(forwards=9)
    service.setup = setup_of(tiny(name="new"))
    hang_up()
    await seen("server.reloaded")
    old.gate.set()
    assert (await talk.reply(1))["error"]["code"] == "backend_failed"
    assert await service.task == 70
    service.task = asyncio.create_task(asyncio.sleep(0, 0))


async def test_a_row_that_the_old_engine_computes_is_watched(make_engine, tiny):
    """A forward that the retiring engine runs counts towards the longest forward."""
    old, new = tiny(name="old", holds="#"), tiny(name="new")
    old.gate.clear()
    context = ServerContext(
        make_engine(old), ServeSettings(socket=Path("unused"), threads=1), Lifecycle()
    )
    assert context.longest_forward() == 0
    asking = asyncio.create_task(context.engine.embed(Embed(id=1, input=("#",))))
    await old.began()
    assert context.swap(make_engine(new), context.settings) is context.engines[0]
    await context.engine.embed(Embed(id=2, input=("#",)))
    assert context.longest_forward() > context.engine.longest_forward()
    old.gate.set()
    await asking


async def test_a_thread_that_the_system_refuses_fails_the_reload(
    start, setup_of, tiny, seen, monkeypatch
):
    """If a thread cannot be started, the reload fails, and its other threads end."""
    service = await start(setup_of(tiny(name="old")))
    talk, _ = await service.talk()
    begin = threading.Thread.start

    def refuse(thread):
        if thread.name == "inference-2":
            raise RuntimeError("can't start new thread")
        begin(thread)

    service.setup = setup_of(tiny(name="new"), threads=3)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        hang_up()
        assert (await seen("server.reload_failed"))["reason"] == "can't start new thread"
    assert [t.name for t in threading.enumerate() if "inference" in t.name] == ["inference-0"]
    assert (await talk.ask(Embed(id=1, input=("a",))))["model"] == "old"


async def test_what_holds_on_an_open_connection_is_who_may_ask(start, setup_of, tiny, seen):
    """Open connections keep their limits, but a user who is no longer listed is disconnected."""
    service = await start(setup_of(tiny(), limits=Limits(2**20, 5)))
    talk, hello = await service.talk()
    assert hello["limits"]["max_inputs"] == 5
    service.setup = setup_of(tiny(), limits=Limits(2**20, 3))
    hang_up()
    await seen("server.reloaded")
    assert (await talk.ask(Embed(id=1, input=("a",) * 5)))["ok"]
    _, hello = await service.talk()
    assert hello["limits"]["max_inputs"] == 3
    service.setup = setup_of(tiny(), access=AccessPolicy(uids=frozenset({os.getuid() + 1})))
    hang_up()
    await seen("server.reloaded", times=2)
    assert (await talk.reply(None))["error"]["code"] == "forbidden"
    await talk.ended()


async def test_an_event_says_what_has_changed_and_what_cannot(
    start, setup_of, tiny, seen, tmp_path
):
    """A reload logs the names of changed settings, and ignores a changed socket."""
    service = await start(setup_of(tiny(), configured={"threads": 1, "drain_seconds": 30}))
    elsewhere = tmp_path / "other.sock"
    service.setup = setup_of(
        tiny(), configured={"threads": 2, "drain_seconds": 30}, threads=2, socket=elsewhere
    )
    hang_up()
    event = await seen("server.reloaded")
    assert (event["changed"], event["threads"]) == (["threads"], 2)
    ignored = await seen("setting.ignored")
    assert (ignored["setting"], ignored["value"]) == ("socket", elsewhere)
    assert not elsewhere.exists()
    talk, _ = await service.talk()
    status = (await talk.ask(Status(id=1)))["status"]
    assert (status["threads"], status["socket"]) == (2, str(service.path))


async def test_where_events_go_takes_a_restart(start, setup_of, tiny, seen):
    """A changed log target is ignored until a restart, which is logged."""
    service = await start(setup_of(tiny()))
    service.setup = setup_of(tiny(), log_target="journal")
    hang_up()
    ignored = await seen("setting.ignored")
    assert (ignored["setting"], ignored["value"], ignored["kept"]) == (
        "log_target", "journal", "stdout",
    )  # fmt: skip


@pytest.fixture
def notified(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(PATIENCE)
        yield receiver


async def test_the_service_manager_is_told_of_a_reload(start, setup_of, tiny, seen, notified):
    """The service manager is notified RELOADING, then READY, even if the reload fails."""
    service = await start(setup_of(tiny()), Manager(notify_address=notified.getsockname()))
    seen_before = (b"STATUS=Loading", b"READY=1")
    assert [notified.recv(1024).startswith(start) for start in seen_before] == [True, True]
    service.setup = setup_of(tiny(name="new"))
    hang_up()
    await seen("engine.retired")
    reloading, clock = notified.recv(1024).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert clock.startswith(b"MONOTONIC_USEC=")
    assert notified.recv(1024).startswith(b"STATUS=Reloading\nEXTEND_TIMEOUT_USEC=")
    assert notified.recv(1024) == b"READY=1\nSTATUS=Serving new"
    service.refuses = ValueError("one line\nREADY=0")
    hang_up()
    await seen("server.reload_failed")
    last = [await asyncio.to_thread(notified.recv, 1024) for _ in range(3)][-1]
    assert last == b"READY=1\nSTATUS=Serving new; not reloaded: one line READY=0"
