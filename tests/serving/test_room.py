"""Sessions and the memory that is held for them."""

import asyncio
import os
import socket
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import encode
from client_lib.wire.messages import Embed, Ping, Status, request_to_map
from client_lib.wire.protocol import Limits
from sidecar.serving.door import Rules
from sidecar.serving.footprint import CONNECTION_BYTES
from sidecar.serving.ledger import Budget
from sidecar.serving.peer import has_left

LARGE = encode(request_to_map(Embed(id=9, input=("word " * 40_000,))))


def held(desk):
    return desk.ledger.to_map()["held_bytes"]


async def test_a_request_is_held_until_its_reply_is_taken(make_dialogue, tiny, soon):
    """Then the connection alone, and nothing after its end."""
    model = tiny()
    dialogue = await make_dialogue(model)
    model.gate.clear()
    dialogue.send(Embed(id=1, input=("a",)))
    await model.began()
    assert held(dialogue.desk) > CONNECTION_BYTES
    model.gate.set()
    assert (await dialogue.reply(1))["ok"]
    await soon(lambda: held(dialogue.desk) == CONNECTION_BYTES)
    dialogue.writer.close()
    await dialogue.ended()
    assert held(dialogue.desk) == 0


async def test_what_does_not_fit_is_refused_whole(make_dialogue):
    """With a time to come back after, or for good where it could never fit."""
    dialogue = await make_dialogue()
    ledger = dialogue.desk.ledger
    ledger.budget = Budget(2**20, 2**20)
    other = ledger.hold("another peer", 2**20 - CONNECTION_BYTES - 10)
    error = (await dialogue.ask(Embed(id=1, input=("a",))))["error"]
    assert (error["code"], error["retryable"]) == ("overloaded", True)
    assert error["retry_after_ms"] > 0
    other.release()
    assert (await dialogue.ask(Embed(id=1, input=("a",))))["ok"]
    error = (await dialogue.ask(Embed(id=2, input=("a" * 60_000,))))["error"]
    assert (error["code"], error["retryable"]) == ("too_large", False)
    assert dialogue.desk.statistics.since_start().failed_by_code == {
        "overloaded": 1, "too_large": 1,
    }  # fmt: skip


async def test_a_long_frame_waits_until_there_is_room(make_dialogue, soon):
    """Nothing of it is read meanwhile, and then it is answered."""
    dialogue = await make_dialogue()
    ledger = dialogue.desk.ledger
    other = ledger.hold("another peer", ledger.budget.of_a_peer)
    rest = ledger.hold("a third", ledger.budget.total - ledger.budget.of_a_peer - 2**18)
    dialogue.writer.write(LARGE)
    await soon(lambda: ledger._waiting)
    other.release()
    assert (await dialogue.reply(9))["truncated"] == [0]
    rest.release()


async def test_a_frame_that_never_finds_room_ends_its_connection(make_dialogue):
    """After as long as a peer may stall: it is told to come back."""
    dialogue = await make_dialogue(rules=Rules(stall_seconds=0.1))
    ledger = dialogue.desk.ledger
    ledger.budget = Budget(2**18, 2**18)
    dialogue.writer.write(LARGE)
    error = (await dialogue.reply(None))["error"]
    assert (error["code"], error["retryable"]) == ("overloaded", True)
    await dialogue.ended()
    assert held(dialogue.desk) == 0


async def test_a_peer_that_leaves_while_it_waits_is_noticed(make_dialogue, soon, monkeypatch):
    """Though nobody reads from it."""
    monkeypatch.setattr("sidecar.serving.session._LOOK_SECONDS", 0.01)
    dialogue = await make_dialogue()
    dialogue.desk.ledger.budget = Budget(2**18, 2**18)
    dialogue.writer.write(LARGE)
    await soon(lambda: dialogue.desk.ledger._waiting)
    dialogue.writer.transport.abort()
    await dialogue.ended()
    assert held(dialogue.desk) == 0


async def test_a_connection_that_does_not_fit_is_told_so(make_dialogue, monkeypatch):
    """And is not counted."""
    monkeypatch.setattr("sidecar.serving.desk.CONNECTION_BYTES", 2**40)
    dialogue = await make_dialogue(hello=False)
    assert (await dialogue.reply(None))["error"]["code"] in {"overloaded", "too_large"}
    await dialogue.ended()
    assert dialogue.desk.door.to_list() == []


@pytest.mark.parametrize("steps", range(1, 30))
async def test_nothing_stays_held_wherever_a_session_is_cancelled(make_dialogue, steps):
    """While a frame is being received, waits for room, or is computed."""
    dialogue = await make_dialogue()
    other = dialogue.desk.ledger.hold("another peer", 1)
    dialogue.send(Ping(id=1), Embed(id=2, input=("a", "b")), Status(id=3))
    dialogue.writer.write(LARGE)
    for _ in range(steps):
        await asyncio.sleep(0)
    dialogue.task.cancel()
    await asyncio.gather(dialogue.task, return_exceptions=True)
    await asyncio.sleep(0)
    assert held(dialogue.desk) == 1
    other.release()


async def test_status_tells_what_is_held_by_whom(make_dialogue):
    """And how much may be."""
    dialogue = await make_dialogue(memory_bytes=2**40)
    memory = (await dialogue.ask(Status(id=1)))["status"]["memory"]
    assert memory["ceiling_bytes"] == 2**40
    assert memory["budget_bytes"] >= memory["budget_of_a_peer_bytes"] > memory["held_bytes"] > 0
    assert list(memory["held_by_peer"]) == [f"pid {os.getpid()} (uid {os.getuid()})"]


async def test_too_little_memory_is_said_and_served_with(make_dialogue):
    """A largest request still fits."""
    with capture_logs() as events:
        dialogue = await make_dialogue(memory_bytes=1)
    (event,) = (event for event in events if event["event"] == "memory.scarce")
    assert event["left_bytes"] < 0
    assert event["budget_bytes"] > 4 * Limits().max_frame_bytes
    assert (await dialogue.ask(Embed(id=1, input=("a",))))["ok"]


def test_a_socket_knows_whether_its_other_end_is_open():
    """Without reading what may still be in it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours:
        with theirs:
            theirs.send(b"unread")
            assert not has_left(ours)
        assert has_left(ours)


async def test_a_connection_that_was_closed_at_this_end_has_left():
    """A failed write closes it, while its requests may still wait for their turn."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        _, writer = await asyncio.open_unix_connection(sock=ours)
        sock = writer.get_extra_info("socket")
        assert not has_left(sock)
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert has_left(sock)
