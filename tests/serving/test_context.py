"""What sessions share: who is here, what the daemon says of itself, and what a reload changes."""

import asyncio
import os
import resource
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import sidecar
from client_lib.wire.errors import BadRequest, Draining, Forbidden, Overloaded
from client_lib.wire.messages import Embed
from client_lib.wire.protocol import Limits, Refused
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.admission.peer import Peer
from sidecar.serving.context import ServerContext
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle, State

SETTINGS = ServeSettings(socket=Path("there"), threads=1, hang_seconds=8.0, memory_bytes=2**35)
ONE, OTHER = Peer(pid=10, uid=1000, gid=1), Peer(pid=20, uid=1001, gid=1)


@pytest.fixture
async def desk(make_engine, tiny):
    desk = ServerContext(make_engine(tiny()), SETTINGS, Lifecycle(), connections=40)
    desk.life.move(State.SERVING)
    return desk


@pytest.fixture
def expelled():
    """Those who were shown out, by name, and a maker of what does so."""
    found = []
    return found, lambda name: lambda refusal: found.append((name, refusal.code))


async def test_whom_new_settings_do_not_admit_is_shown_out(desk, make_engine, tiny, expelled):
    """Whoever is here: not those who have left, nor those who may stay."""
    found, of = expelled
    with desk.visit(OTHER, of("other has left")):
        pass
    with desk.visit(ONE, of("one")), desk.visit(OTHER, of("a")), desk.visit(OTHER, of("b")):
        new = make_engine(tiny(name="new"))
        settings = replace(SETTINGS, rules=AccessPolicy(uids=frozenset({1000})))
        old = desk.engine
        assert desk.swap(new, settings) is old
        assert sorted(found) == [("a", "forbidden"), ("b", "forbidden")]
        assert desk.engines == [old, new]
        assert desk.engine_for(ONE) is new
        with pytest.raises(Forbidden):
            desk.engine_for(OTHER)
    with pytest.raises(Forbidden), desk.visit(OTHER, of("too late")):
        pytest.fail("was let in")
    with pytest.raises(Forbidden):
        desk.enter(OTHER)
    assert desk.settings is settings


async def test_a_swap_changes_what_requests_may_hold(desk, make_engine, tiny):
    """By the new settings, and by the new models."""
    before = desk.accounts.to_map()
    desk.swap(make_engine(tiny(dimensions=10_000)), replace(SETTINGS, memory_bytes=2**20))
    after = desk.accounts.to_map()
    assert after["budget_bytes"] < before["budget_bytes"]
    request = Embed(id=1, input=("a",) * 100)
    assert desk.accounts.hold(ONE, request).size > 100 * 10_000 * 4
    status = await desk.status(ONE)
    assert status["memory"]["ceiling_bytes"] == 2**20


async def test_who_enters_is_counted_until_the_place_is_given_back(desk):
    """At the door, and with what a connection takes; one that is refused in neither."""
    desk.door.rules = AccessPolicy(max_connections=1)
    place = desk.enter(ONE)
    with pytest.raises(Overloaded):
        desk.enter(ONE)
    assert [peer["connections"] for peer in desk.door.to_list()] == [1]
    held = desk.accounts.control.to_map()["held_bytes"]
    assert held > 0
    with desk.enter(OTHER):
        assert desk.accounts.control.to_map()["held_bytes"] == 2 * held
    place.close()
    assert desk.door.to_list() == []
    assert desk.accounts.control.to_map()["held_bytes"] == 0


async def test_there_are_as_many_connections_as_was_said(desk):
    """Of one user three quarters of them."""
    places = [desk.enter(Peer(pid, 1000, 1)) for pid in range(30)]
    with pytest.raises(Overloaded, match="and 40 that there may be"):
        desk.enter(Peer(99, 1000, 1))
    for place in places:
        place.close()


async def test_a_daemon_that_does_not_serve_sends_on(make_engine, tiny):
    """Before it serves, and when it drains."""
    desk = ServerContext(make_engine(tiny()), SETTINGS, Lifecycle())
    for state, serves in (("SERVING", True), ("RELOADING", True), ("DRAINING", False)):
        desk.life.move(State[state])
        if serves:
            assert desk.engine_for(ONE) is desk.engine
        else:
            with pytest.raises(Draining):
                desk.engine_for(ONE)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("what", ["longest_forward", "standstill"])
async def test_an_engine_that_makes_no_progress_is_seen(desk, make_engine, tiny, which, what):
    """The old one, too, and long before the daemon gives up on itself."""
    desk.swap(make_engine(tiny()), SETTINGS)
    seconds = 0.0
    setattr(desk.engines[which], what, lambda: seconds)
    seconds = 3.9
    assert (await desk.status(ONE))["healthy"] is True
    seconds = 4.0
    assert desk.stuck_for() == 4.0
    assert desk.longest_forward() == (4.0 if what == "longest_forward" else 0.0)
    assert (await desk.status(ONE))["healthy"] is False


@pytest.mark.parametrize("which", [0, 1])
async def test_a_crash_of_any_engine_is_not_healthy(desk, make_engine, tiny, which):
    """Also of the one that only finishes what it had taken."""
    desk.swap(make_engine(tiny()), SETTINGS)
    desk.engines[which].crashed.set_result(RuntimeError())
    assert (await desk.status(ONE))["healthy"] is False


@pytest.mark.parametrize("ask", ["status", "metrics"])
async def test_a_user_who_asks_much_how_things_are_holds_up_nobody(desk, ask):
    """His own questions are answered one after the other."""
    latest = [desk._status, *desk._metrics.values()]
    for each in latest:
        each._pause = 0.001

    def asking(peer):
        form = ("prometheus",) if ask == "metrics" else ()
        return asyncio.create_task(getattr(desk, ask)(peer, *form))

    many = [asking(ONE) for _ in range(8)]
    await asyncio.sleep(0)
    await asking(OTHER)
    assert sum(task.done() for task in many) <= 3
    await asyncio.gather(*many)


async def test_each_format_of_the_metrics_is_its_own(desk):
    """Whoever has asked for the other just before."""
    told = [await desk.metrics(ONE, form) for form in ("openmetrics", "prometheus")]
    assert ["openmetrics" in each["content_type"] for each in told] == [True, False]
    assert [each["text"].endswith("# EOF\n") for each in told] == [True, False]
    assert all('socket="there"' in each["text"] for each in told)


async def test_lines_about_a_user_are_few_however_many_processes_he_has(desk):
    """A script that is started again and again is a new process each time; all is counted."""
    refused = Refused(7, BadRequest("no"), True)
    with capture_logs() as events:
        for pid in range(20):
            desk.note_refused(Peer(pid, 1000, 5), refused)
            desk.note_stalled(Peer(pid, 1001, 5), "hello", 2.0)
        desk.note_refused(Peer(7, 1002, 5), refused)
    lines = [(event["event"], event["peer_uid"]) for event in events]
    assert lines.count(("peer.rejected", 1000)) == lines.count(("peer.stalled", 1001)) == 5
    assert lines.count(("peer.rejected", 1002)) == 1
    assert desk.statistics.since_start().refused == {"bad_request": 21}
    last = events[-1]
    assert (last["request_id"], last["code"], last["fatal"]) == (7, "bad_request", True)


async def test_hello_tells_the_limits_of_its_connection(desk):
    """And not those of a later configuration."""
    limits = Limits(1, 2, 3)
    assert desk.hello(limits) == {
        "server": f"sidecar/{sidecar.__version__}",
        "limits": {"max_frame_bytes": 1, "max_inputs": 2, "max_text_bytes": 3},
        "pid": os.getpid(),
    }


async def test_a_status_says_what_the_kernel_says_of_the_process(desk, monkeypatch):
    """Bytes, seconds, and files; limits that hold, and not those that it may raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    before = os.times()
    try:
        status = await desk.status(ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    after = os.times()
    process, memory = status["process"], status["memory"]
    assert process["max_files"] == soft - 1
    low, high = (each.user + each.system for each in (before, after))
    assert low - 0.02 <= process["cpu_seconds"] <= high + 0.02
    pages = kernel_says("statm")
    page = resource.getpagesize()
    assert process["virtual_bytes"] == pytest.approx(pages[0] * page, rel=0.1)
    assert memory["rss_bytes"] == pytest.approx(pages[1] * page, rel=0.1)
    assert 0 < memory["pss_bytes"] <= memory["rss_bytes"]
    assert 0 < memory["at_start"]["rss_bytes"] <= 2 * memory["rss_bytes"]
    assert process["open_files"] == pytest.approx(entries("fd"), abs=5)
    assert process["threads"] == pytest.approx(entries("task"), abs=3)
    assert time.time() - process["started"] == pytest.approx(age_of_process(), abs=2)


def kernel_says(name):
    return [int(each) for each in Path("/proc/self", name).read_text().split()]


def entries(name):
    return sum(1 for _ in Path("/proc/self", name).iterdir())


def age_of_process():
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


async def test_a_status_says_what_daemon_it_is_and_since_when(desk):
    """By its version, process, socket and state; its age grows."""
    first, second = await desk.status(ONE), await desk.status(ONE)
    assert (first["version"], first["pid"]) == (sidecar.__version__, os.getpid())
    assert (first["socket"], first["state"], first["healthy"]) == ("there", "serving", True)
    assert 0 <= first["up_seconds"] < second["up_seconds"] < 100
    age = datetime.now(UTC) - datetime.fromisoformat(first["since"])
    assert timedelta(0) <= age < timedelta(seconds=100)
    assert first["memory"]["ceiling_bytes"] == 2**35
