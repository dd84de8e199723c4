"""One `AsyncClient`, many tasks; and cancellation at every point."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import AsyncClient, CallTimeout, ClientClosed, ConnectionLost, Draining
from client_lib.wire.messages import Cancel, Embed

from .fake_daemon import Act, FakeDaemon, answer, vector
from .played import PlayedDaemon

# More loop iterations than a call takes.
STEPS = range(30)


@pytest.fixture
async def client(fake: FakeDaemon) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(fake.socket) as client:
        yield client


async def cancelled_after(steps: int, work: Any) -> None:
    """Run `work` for `steps` iterations of the loop, then cancel it."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def heard(fake: FakeDaemon, kind: Any, count: int = 1) -> list[Any]:
    """Wait, without blocking the loop, for `count` requests of a kind."""
    return await asyncio.to_thread(fake.wait_for, kind, count)


async def test_tasks_share_one_connection(client: AsyncClient, fake: FakeDaemon) -> None:
    """Concurrent tasks each get their own answer over one connection."""
    texts = [f"{i:03}" for i in range(300)]
    vectors = await asyncio.gather(*[client.encode(text) for text in texts])
    assert np.array_equal(np.stack(vectors), np.stack([vector(text) for text in texts]))
    assert fake.connections == 1


async def test_a_client_has_no_task_of_its_own(client: AsyncClient) -> None:
    """The client runs no background task."""
    await client.ping()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_restart_under_many_tasks_loses_nothing(
    client: AsyncClient, fake: FakeDaemon
) -> None:
    """The calls of all tasks survive a daemon restart."""
    fake.script = lambda _: Act.SILENCE
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.encode(f"{i:02}")) for i in range(50)]
        await heard(fake, Embed, 50)
        await asyncio.to_thread(fake.stop)
        fake.script = answer
        fake.start()
    for i, task in enumerate(tasks):
        assert np.array_equal(task.result(), vector(f"{i:02}"))


@pytest.mark.slow
@pytest.mark.parametrize("act", [answer, lambda _: Act.SILENCE], ids=["answered", "unanswered"])
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.embed(["a"]),
        lambda client: client.encode([str(i) for i in range(1500)]),
        lambda client: client.encode(["x" * 1_000_000] * 5),
    ],
    ids=["embed", "encode", "huge"],
)
async def test_cancelled_at_every_await(
    fake: FakeDaemon, call: Callable[[AsyncClient], Any], act: Any
) -> None:
    """A call cancelled at any point leaves the client usable and no request pending."""
    for steps in STEPS:
        async with AsyncClient(fake.socket) as client:
            for _ in range(2):  # The first one connects, the second reuses the connection.
                fake.script = act
                await cancelled_after(steps, call(client))
                fake.script = answer
                assert np.array_equal(await client.encode("next"), vector("next"))
                assert fake.unsettled == 0  # answered, cancelled or never sent
    gc.collect()  # an unawaited coroutine would warn here


async def both_ping(client: AsyncClient) -> None:
    """Make two concurrent calls, so that one connects and the other waits for it."""
    await asyncio.gather(client.ping(), client.ping())


async def test_cancelled_while_the_daemon_is_away(fake: FakeDaemon) -> None:
    """Cancelling a call that waits for a daemon leaves the client usable."""
    fake.stop()
    for steps in STEPS:
        async with AsyncClient(fake.socket) as client:
            await cancelled_after(steps, both_ping(client))
            fake.start()
            assert await client.ping() > 0
            await asyncio.to_thread(fake.stop)


async def test_cancelled_while_the_client_closes(fake: FakeDaemon) -> None:
    """A cancelled `close` can be repeated."""
    for steps in range(5):
        client = AsyncClient(fake.socket)
        await client.ping()
        await cancelled_after(steps, client.close())
        await client.close()
        with pytest.raises(ClientClosed):
            await client.ping()
        await asyncio.to_thread(fake.wait_until_left)


async def test_cancelling_a_call_cancels_it_in_the_daemon(
    client: AsyncClient, fake: FakeDaemon
) -> None:
    """Cancelling a call cancels its request in the daemon."""
    fake.script = lambda _: Act.SILENCE
    task = asyncio.create_task(client.embed(["a"]))
    (embed,) = await heard(fake, Embed)
    task.cancel()
    (cancel,) = await heard(fake, Cancel)
    assert cancel.target == embed.id


async def test_the_callers_own_timeout_stays_the_callers(
    client: AsyncClient, fake: FakeDaemon
) -> None:
    """An `asyncio.timeout` around a call raises `TimeoutError`, not `CallTimeout`."""
    fake.script = lambda _: Act.SILENCE
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await client.ping()
    assert not isinstance(caught.value, CallTimeout)


async def test_a_daemon_that_does_not_read_holds_the_writer_back(
    client: AsyncClient, fake: FakeDaemon
) -> None:
    """While the daemon does not read, frames wait in their tasks and can be cancelled unsent."""
    release = threading.Event()
    fake.script = lambda request: release.wait(10) and answer(request)
    await asyncio.gather(client.ping(timeout=0.05), return_exceptions=True)
    texts = [f"{i}" + "x" * 1_000_000 for i in range(8)]
    tasks = [asyncio.create_task(client.encode(text)) for text in texts]
    for _ in STEPS:
        await asyncio.sleep(0)
    for task in tasks[4:]:
        task.cancel()
    await asyncio.wait(tasks[4:])
    release.set()
    for text, row in zip(texts[:4], await asyncio.gather(*tasks[:4]), strict=True):
        assert np.array_equal(row, vector(text))
    assert await client.ping() > 0
    assert len(await heard(fake, Embed)) == 4
    assert fake.unsettled == 0


async def test_an_encode_keeps_four_requests_in_flight(
    client: AsyncClient, fake: FakeDaemon
) -> None:
    """An `encode` keeps exactly four requests in flight."""
    fake.script = lambda request: Act.SILENCE if isinstance(request, Embed) else answer(request)
    task = asyncio.create_task(client.encode([f"{i}" for i in range(2000)]))
    assert len(await heard(fake, Embed, 4)) == 4
    await client.ping()  # by now the daemon has received everything sent before
    assert len(await heard(fake, Embed, 4)) == 4
    task.cancel()
    await heard(fake, Cancel, 4)


async def test_another_tasks_dial_is_waited_for_as_long_as_there_is_time(tmp_path: Path) -> None:
    """A call waiting for another task's connection attempt keeps its own deadline."""
    async with AsyncClient(tmp_path / "none") as client:
        dialing = asyncio.create_task(client.ping())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionLost, match="No such file"):
            await client.ping(timeout=0.05)
        assert not dialing.done()
    with pytest.raises(ClientClosed):
        await dialing


async def test_a_daemon_that_goes_answers_what_it_has_taken(tmp_path: Path) -> None:
    """A draining daemon answers accepted calls; refused ones go to its successor."""
    with PlayedDaemon(tmp_path / "s") as daemon:
        async with AsyncClient(daemon.socket) as client:
            kept = asyncio.create_task(client.encode("kept"))
            old = await asyncio.to_thread(daemon.accept)
            taken = await asyncio.to_thread(old.take)
            refused = asyncio.create_task(client.encode("refused"))
            old.say(old.refused(await asyncio.to_thread(old.take), Draining("going")))
            new = await asyncio.to_thread(daemon.accept)
            new.say(new.answered(await asyncio.to_thread(new.take)))
            assert np.array_equal(await refused, vector("refused"))
            old.say(old.answered(taken))
            assert np.array_equal(await kept, vector("kept"))
            assert await asyncio.to_thread(old.has_ended)
            later = asyncio.create_task(client.ping())
            new.say(new.answered(await asyncio.to_thread(new.take)))  # not the kept call
            assert await later > 0


async def test_a_daemon_that_goes_is_left_with_the_last_call_that_is_given_up(
    tmp_path: Path,
) -> None:
    """The connection to a draining daemon is closed when its last call times out."""
    with PlayedDaemon(tmp_path / "s") as daemon:
        async with AsyncClient(daemon.socket) as client:
            late = asyncio.create_task(client.encode("late", timeout=0.5))
            old = await asyncio.to_thread(daemon.accept)
            await asyncio.to_thread(old.take)
            refused = asyncio.create_task(client.encode("refused"))
            old.say(old.refused(await asyncio.to_thread(old.take), Draining("going")))
            new = await asyncio.to_thread(daemon.accept)
            new.say(new.answered(await asyncio.to_thread(new.take)))
            await refused
            with pytest.raises(CallTimeout):
                await late
            assert isinstance(await asyncio.to_thread(old.take), Cancel)
            assert await asyncio.to_thread(old.has_ended)


async def test_a_closed_client_has_no_connection(tmp_path: Path) -> None:
    """`close` closes the connection before it returns, since the loop may not run again."""
    with PlayedDaemon(tmp_path / "s") as daemon:
        client = AsyncClient(daemon.socket)
        ping = asyncio.create_task(client.ping())
        connection = await asyncio.to_thread(daemon.accept)
        connection.say(connection.answered(await asyncio.to_thread(connection.take)))
        await ping
        await client.close()
        assert connection.has_ended()


async def test_who_waits_to_write_goes_to_the_next_daemon(tmp_path: Path) -> None:
    """A call waiting to write moves to the next daemon when the connection is lost."""
    with PlayedDaemon(tmp_path / "s") as daemon:
        async with AsyncClient(daemon.socket) as client, asyncio.timeout(20):
            large = asyncio.create_task(client.encode("x" * 1_000_000))  # exceeds the buffer
            old = await asyncio.to_thread(daemon.accept)
            waiting = asyncio.create_task(client.encode("waiting"))
            for _ in STEPS:
                await asyncio.sleep(0)
            old.close()
            new = await asyncio.to_thread(daemon.accept)
            for _ in range(2):
                new.say(new.answered(await asyncio.to_thread(new.take)))
            assert np.array_equal(await waiting, vector("waiting"))
            await large


async def test_a_call_that_lost_its_daemon_says_that_there_is_none(tmp_path: Path) -> None:
    """A call whose daemon disappeared raises `ConnectionLost` rather than `CallTimeout`."""
    with PlayedDaemon(tmp_path / "s") as daemon:
        client = AsyncClient(daemon.socket)
        call = asyncio.create_task(client.ping(timeout=0.2))
        connection = await asyncio.to_thread(daemon.accept)
        await asyncio.to_thread(connection.take)
    # The block has closed the connection and the listener; only the path is left.
    with pytest.raises(ConnectionLost, match="sidecar serve"):
        await call
    await client.close()


async def test_close_wakes_every_task(fake: FakeDaemon) -> None:
    """Closing the client fails the calls in flight with `ClientClosed`."""
    fake.script = lambda _: Act.SILENCE
    client = AsyncClient(fake.socket)
    tasks = [asyncio.create_task(client.embed([str(i)])) for i in range(4)]
    await heard(fake, Embed, 4)
    await client.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ClientClosed] * 4


async def test_close_ends_the_wait_for_a_daemon(tmp_path: Any) -> None:
    """Closing the client fails calls waiting for a daemon with `ClientClosed`."""
    client = AsyncClient(tmp_path / "none")
    tasks = [asyncio.create_task(client.ping()) for _ in range(3)]
    await asyncio.sleep(0)
    await client.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ClientClosed] * 3


def test_a_client_stays_with_its_loop(fake: FakeDaemon) -> None:
    """Using a client from a second event loop raises `RuntimeError`."""
    client = AsyncClient(fake.socket)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.ping())
        for call in (client.ping, client.close):
            with pytest.raises(RuntimeError, match="in use on another event loop"):
                second.run(call())
        first.run(client.ping())  # a `close` that was refused has closed nothing
        first.run(client.close())


def test_a_client_is_refused_while_its_loop_runs(fake: FakeDaemon) -> None:
    """Use from another running loop raises `RuntimeError` and does not disturb the client."""
    client = AsyncClient(fake.socket)

    async def ask_from_elsewhere() -> None:
        await client.ping()
        with pytest.raises(RuntimeError, match="in use on another event loop"):
            await asyncio.to_thread(asyncio.run, client.encode("a"))
        assert np.array_equal(await client.encode("b"), vector("b"))
        await client.close()

    asyncio.run(ask_from_elsewhere())


@pytest.mark.slow
@pytest.mark.parametrize("closes", [True, False])
def test_a_client_outlives_its_loop(fake: FakeDaemon, closes: bool) -> None:
    """The connection is closed with its loop, and a client on the next loop opens another."""
    client = AsyncClient(fake.socket)
    for text in "abc":
        assert np.array_equal(asyncio.run(client.encode(text)), vector(text))
        gc.collect()  # an open connection would warn here
    assert fake.connections == 3
    if closes:
        asyncio.run(client.close())
        with pytest.raises(ClientClosed):
            asyncio.run(client.ping())


def test_a_loop_that_is_closed_in_the_middle_leaves_the_client_usable(fake: FakeDaemon) -> None:
    """A client whose loop ended during a call can be used on another loop."""
    fake.script = lambda _: Act.SILENCE
    client = AsyncClient(fake.socket)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(client.encode("a"), 0.05))
    fake.script = answer
    assert np.array_equal(asyncio.run(client.encode("b")), vector("b"))
