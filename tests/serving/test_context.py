"""The sessions' shared context: registration, status, and what a reload changes."""

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
async def context(make_engine, tiny):
    context = ServerContext(make_engine(tiny()), SETTINGS, Lifecycle(), connections=40)
    context.life.move(State.SERVING)
    return context


@pytest.fixture
def expelled():
    """The names and error codes of expelled peers, and a factory of their `expel` callbacks."""
    found = []
    return found, lambda name: lambda refusal: found.append((name, refusal.code))


async def test_whom_new_settings_do_not_admit_is_shown_out(context, make_engine, tiny, expelled):
    """A reload disconnects the connected peers that its settings exclude, and no others."""
    found, of = expelled
    with context.registered(OTHER, of("other has left")):
        pass
    with (
        context.registered(ONE, of("one")),
        context.registered(OTHER, of("a")),
        context.registered(OTHER, of("b")),
    ):
        new = make_engine(tiny(name="new"))
        settings = replace(SETTINGS, access=AccessPolicy(uids=frozenset({1000})))
        old = context.engine
        assert context.swap(new, settings) is old
        assert sorted(found) == [("a", "forbidden"), ("b", "forbidden")]
        assert context.engines == [old, new]
        assert context.engine_for(ONE) is new
        with pytest.raises(Forbidden):
            context.engine_for(OTHER)
    with pytest.raises(Forbidden), context.registered(OTHER, of("too late")):
        pytest.fail("was admitted")
    with pytest.raises(Forbidden):
        context.connect(OTHER)
    assert context.settings is settings


async def test_a_swap_changes_what_requests_may_hold(context, make_engine, tiny):
    """After a swap, memory budgets and estimates follow the new settings and models."""
    before = context.accounts.to_map()
    context.swap(make_engine(tiny(dimensions=10_000)), replace(SETTINGS, memory_bytes=2**20))
    after = context.accounts.to_map()
    assert after["budget_bytes"] < before["budget_bytes"]
    request = Embed(id=1, input=("a",) * 100)
    assert context.accounts.reserve_request(ONE, request).size > 100 * 10_000 * 4
    status = await context.status(ONE)
    assert status["memory"]["ceiling_bytes"] == 2**20


async def test_who_enters_is_counted_until_the_place_is_given_back(context):
    """A connection counts towards access and memory until closed; a rejected one never does."""
    context.access.policy = AccessPolicy(max_connections=1)
    admission = context.connect(ONE)
    with pytest.raises(Overloaded):
        context.connect(ONE)
    assert [peer["connections"] for peer in context.access.to_list()] == [1]
    held = context.accounts.control.to_map()["held_bytes"]
    assert held > 0
    with context.connect(OTHER):
        assert context.accounts.control.to_map()["held_bytes"] == 2 * held
    admission.close()
    assert context.access.to_list() == []
    assert context.accounts.control.to_map()["held_bytes"] == 0


async def test_there_are_as_many_connections_as_was_said(context):
    """One user may have three quarters of all connections."""
    admissions = [context.connect(Peer(pid, 1000, 1)) for pid in range(30)]
    with pytest.raises(Overloaded, match=r"\(40 allowed\)"):
        context.connect(Peer(99, 1000, 1))
    for admission in admissions:
        admission.close()


async def test_a_daemon_that_does_not_serve_sends_on(make_engine, tiny):
    """Requests are accepted while serving and reloading, and rejected while draining."""
    context = ServerContext(make_engine(tiny()), SETTINGS, Lifecycle())
    for state, serves in (("SERVING", True), ("RELOADING", True), ("DRAINING", False)):
        context.life.move(State[state])
        if serves:
            assert context.engine_for(ONE) is context.engine
        else:
            with pytest.raises(Draining):
                context.engine_for(ONE)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("what", ["longest_forward", "standstill"])
async def test_an_engine_that_makes_no_progress_is_seen(context, make_engine, tiny, which, what):
    """A stall of either engine makes the daemon unhealthy after half of `hang_seconds`."""
    context.swap(make_engine(tiny()), SETTINGS)
    seconds = 0.0
    setattr(context.engines[which], what, lambda: seconds)
    seconds = 3.9
    assert (await context.status(ONE))["healthy"] is True
    seconds = 4.0
    assert context.stuck_for() == 4.0
    assert context.longest_forward() == (4.0 if what == "longest_forward" else 0.0)
    assert (await context.status(ONE))["healthy"] is False


@pytest.mark.parametrize("which", [0, 1])
async def test_a_crash_of_any_engine_is_not_healthy(context, make_engine, tiny, which):
    """A crash of the current engine, or of the retiring one, makes the daemon unhealthy."""
    context.swap(make_engine(tiny()), SETTINGS)
    context.engines[which].crashed.set_result(RuntimeError())
    assert (await context.status(ONE))["healthy"] is False


@pytest.mark.parametrize("ask", ["status", "metrics"])
async def test_a_user_who_asks_much_how_things_are_holds_up_nobody(context, ask):
    """A user's status requests are answered one by one and do not delay other users."""
    latest = [context._status, *context._metrics.values()]
    for each in latest:
        each._pause = 0.001

    def asking(peer):
        form = ("prometheus",) if ask == "metrics" else ()
        return asyncio.create_task(getattr(context, ask)(peer, *form))

    many = [asking(ONE) for _ in range(8)]
    await asyncio.sleep(0)
    await asking(OTHER)
    assert sum(task.done() for task in many) <= 3
    await asyncio.gather(*many)


async def test_each_format_of_the_metrics_is_its_own(context):
    """Each metrics request gets its own format, whichever was requested before."""
    replies = [await context.metrics(ONE, form) for form in ("openmetrics", "prometheus")]
    assert ["openmetrics" in each["content_type"] for each in replies] == [True, False]
    assert [each["text"].endswith("# EOF\n") for each in replies] == [True, False]
    assert all('socket="there"' in each["text"] for each in replies)


async def test_lines_about_a_user_are_few_however_many_processes_he_has(context):
    """Log lines are limited per user, however many processes the user has; all is counted."""
    refused = Refused(7, BadRequest("no"), True)
    with capture_logs() as events:
        for pid in range(20):
            context.log_rejection(Peer(pid, 1000, 5), refused)
            context.log_stall(Peer(pid, 1001, 5), "hello", 2.0)
        context.log_rejection(Peer(7, 1002, 5), refused)
    lines = [(event["event"], event["peer_uid"]) for event in events]
    assert lines.count(("peer.rejected", 1000)) == lines.count(("peer.stalled", 1001)) == 5
    assert lines.count(("peer.rejected", 1002)) == 1
    assert context.statistics.since_start().refused == {"bad_request": 21}
    last = events[-1]
    assert (last["request_id"], last["code"], last["fatal"]) == (7, "bad_request", True)


async def test_hello_tells_the_limits_of_its_connection(context):
    """`hello` reports the limits of its connection, not those of a later configuration."""
    limits = Limits(1, 2, 3)
    assert context.hello(limits) == {
        "server": f"sidecar/{sidecar.__version__}",
        "limits": {"max_frame_bytes": 1, "max_inputs": 2, "max_text_bytes": 3},
        "pid": os.getpid(),
    }


async def test_a_status_says_what_the_kernel_says_of_the_process(context, monkeypatch):
    """`status` agrees with the kernel about memory, CPU time, threads, files and soft limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    before = os.times()
    try:
        status = await context.status(ONE)
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


async def test_a_status_says_what_daemon_it_is_and_since_when(context):
    """`status` reports version, pid, socket, state, start time and a growing uptime."""
    first, second = await context.status(ONE), await context.status(ONE)
    assert (first["version"], first["pid"]) == (sidecar.__version__, os.getpid())
    assert (first["socket"], first["state"], first["healthy"]) == ("there", "serving", True)
    assert 0 <= first["up_seconds"] < second["up_seconds"] < 100
    age = datetime.now(UTC) - datetime.fromisoformat(first["since"])
    assert timedelta(0) <= age < timedelta(seconds=100)
    assert first["memory"]["ceiling_bytes"] == 2**35
