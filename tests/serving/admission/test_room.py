"""Sessions and the memory that is reserved for them."""

import asyncio
import os
import socket
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import encode
from client_lib.wire.errors import Overloaded
from client_lib.wire.messages import (
    Cancel,
    Embed,
    Hello,
    Metrics,
    Ping,
    Status,
    request_to_map,
)
from client_lib.wire.protocol import Limits
from sidecar.serving.admission.access import AccessPolicy
from sidecar.serving.admission.memory_budget import Quota
from sidecar.serving.admission.memory_estimator import CONNECTION_BYTES, SHORT_READ_BYTES
from sidecar.serving.admission.peer import Peer, has_left

from ..steps import cancelled_at_every_await

LARGE = encode(request_to_map(Embed(id=9, input=("word " * 40_000,))))


OTHER = Peer(pid=1, uid=os.getuid() + 1, gid=1)


def held(context):
    """Return all bytes that are held for anybody, connections included."""
    budgets = (context.accounts.requests, context.accounts.decoding, context.accounts.control)
    return sum(budget.to_map()["held_bytes"] for budget in budgets)


async def test_a_request_is_held_until_its_reply_is_taken(make_dialogue, tiny, soon):
    """A request's memory is held until its reply is read, a connection's until it ends."""
    model = tiny()
    dialogue = await make_dialogue(model)
    assert held(dialogue.context) == CONNECTION_BYTES
    model.gate.clear()
    dialogue.send(Embed(id=1, input=("a",)))
    await model.began()
    assert held(dialogue.context) > CONNECTION_BYTES
    model.gate.set()
    assert (await dialogue.reply(1))["ok"]
    await soon(lambda: held(dialogue.context) == CONNECTION_BYTES)
    dialogue.writer.close()
    await dialogue.ended()
    assert held(dialogue.context) == 0


async def test_what_does_not_fit_is_refused_whole(make_dialogue):
    """A request that does not fit gets a retry time, or a final error if it could never fit."""
    dialogue = await make_dialogue()
    budget = dialogue.context.accounts.requests
    budget.quota = Quota(total=2**20, part=1.0)
    other = budget.try_reserve(OTHER, 3 * 2**18)
    rest = budget.try_reserve(dialogue.session._peer, 190_000)
    error = (await dialogue.ask(Embed(id=1, input=("a",))))["error"]
    assert (error["code"], error["retryable"]) == ("overloaded", True)
    assert error["retry_after_ms"] > 0
    other.release()
    rest.release()
    assert (await dialogue.ask(Embed(id=1, input=("a",))))["ok"]
    error = (await dialogue.ask(Embed(id=2, input=("a" * 60_000,))))["error"]
    assert (error["code"], error["retryable"]) == ("too_large", False)
    assert dialogue.context.statistics.since_start().failed_by_code == {
        "overloaded": 1, "too_large": 1,
    }  # fmt: skip


async def test_who_has_filled_his_share_is_told_how_things_are(make_dialogue):
    """Hello, ping, cancel, status and metrics are answered even if the peer's share is used up."""
    dialogue = await make_dialogue(hello=False)
    budget = dialogue.context.accounts.requests
    assert budget.try_reserve(dialogue.session._peer, budget.quota.of_a_process)
    requests = (Hello(id=0, version=1), Ping(id=1), Cancel(id=2, target=9), Status(id=3))
    for request in (*requests, Metrics(id=4)):
        assert (await dialogue.ask(request))["ok"]
    assert (await dialogue.ask(Embed(id=5, input=("a",))))["error"]["code"] == "overloaded"


async def test_a_long_frame_waits_until_there_is_room(make_dialogue, soon):
    """A long frame is read no further than fits until there is room, and is then answered."""
    dialogue = await make_dialogue()
    budget = dialogue.context.accounts.requests
    budget.quota = Quota(total=2**20, part=1.0)
    other = budget.try_reserve(OTHER, 3 * 2**18)
    rest = budget.try_reserve(dialogue.session._peer, 180_000)
    dialogue.writer.write(LARGE)
    await soon(lambda: budget._waiting)
    assert dialogue.session._connection.buffered <= SHORT_READ_BYTES
    budget.quota = Quota(total=2**26, part=1.0)
    other.release()
    assert (await dialogue.reply(9))["truncated"] == [0]
    rest.release()


async def test_a_large_request_keeps_no_small_one_waiting(make_dialogue, soon):
    """A large request does not block a later small one, even of the same process."""
    dialogue = await make_dialogue()
    budget, peer = dialogue.context.accounts.requests, dialogue.session._peer
    budget.quota = Quota(total=2**20, part=1.0)
    other = budget.try_reserve(OTHER, 3 * 2**18)
    first = budget.try_reserve(peer, 100_000)
    dialogue.writer.write(LARGE)
    await soon(lambda: budget._waiting)
    second = budget.try_reserve(peer, 96_000)
    small = asyncio.create_task(dialogue.context.accounts.reserve_arrival(peer, 50_000))
    await soon(lambda: len(budget._waiting) == 2)
    second.release()
    assert (await small).size == 50_000
    assert len(budget._waiting) == 1
    for reservation in (other, first, small.result()):
        reservation.release()


async def test_half_a_frame_holds_what_has_arrived_of_it(make_dialogue, soon):
    """Only the received part of a frame is reserved, whatever length its header states."""
    dialogue = await make_dialogue()
    before = held(dialogue.context)
    body = LARGE[4:]
    dialogue.writer.write((16 * 2**20).to_bytes(4, "big") + body[:1])
    await soon(lambda: dialogue.session._connection.missing)
    assert held(dialogue.context) - before <= 2**18
    dialogue.writer.write(body[1:100_000])
    await soon(lambda: dialogue.session._connection.buffered > 99_999)
    assert 100_000 < held(dialogue.context) - before <= 2**18


async def test_a_long_frame_holds_as_much_as_has_arrived(make_dialogue, soon):
    """The reservation of a long frame follows its received bytes at all times, up to its size."""
    dialogue = await make_dialogue()
    budget = dialogue.context.accounts.requests
    whole = 3 * 2**20
    dialogue.writer.write(whole.to_bytes(4, "big"))
    arrived = 4
    while arrived < whole:
        piece = b"x" * min(300_000, whole + 3 - arrived)  # all but the last byte
        dialogue.writer.write(piece)
        arrived += len(piece)
        await soon(lambda so_far=arrived: dialogue.session._connection.buffered == so_far)
        assert arrived < budget.to_map()["held_bytes"] <= 2 * 1.125 * arrived + 2**18
    assert budget.to_map()["held_bytes"] <= 1.125 * whole + 100


async def test_what_is_decoded_waits_for_others_that_are(make_dialogue, soon):
    """A complete frame waits for room to be decoded instead of being rejected."""
    dialogue = await make_dialogue()
    decoding = dialogue.context.accounts.decoding
    other = decoding.try_reserve(OTHER, decoding.quota.total)
    dialogue.writer.write(LARGE)
    await soon(lambda: decoding._waiting)
    other.release()
    assert (await dialogue.reply(9))["truncated"] == [0]
    assert decoding.to_map()["held_bytes"] == 0


async def test_a_frame_that_never_finds_room_ends_its_connection(make_dialogue):
    """A frame that finds no room within the stall limit ends the connection with `overloaded`."""
    dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=0.1))
    dialogue.context.accounts.requests.quota = Quota(total=2**17, part=1.0)
    dialogue.writer.write(LARGE)
    error = (await dialogue.reply(None))["error"]
    assert (error["code"], error["retryable"]) == ("overloaded", True)
    await dialogue.ended()
    assert held(dialogue.context) == 0


async def test_a_peer_that_leaves_while_it_waits_is_noticed(make_dialogue, soon, monkeypatch):
    """A peer that disconnects while it waits for room is noticed, though nothing is read."""
    monkeypatch.setattr("sidecar.serving.transport.reader._LOOK_SECONDS", 0.01)
    dialogue = await make_dialogue()
    dialogue.context.accounts.requests.quota = Quota(total=2**17, part=1.0)
    dialogue.writer.write(LARGE)
    await soon(lambda: dialogue.context.accounts.requests._waiting)
    dialogue.writer.transport.abort()
    await dialogue.ended()
    assert held(dialogue.context) == 0


async def test_a_connection_that_does_not_fit_is_refused(make_dialogue, monkeypatch):
    """A connection for which there is no memory is rejected and not counted."""
    dialogue = await make_dialogue()
    counted = dialogue.context.access.to_list()
    monkeypatch.setattr("sidecar.serving.memory_accounts.CONNECTION_BYTES", 2**40)
    with pytest.raises(Overloaded):
        dialogue.context.connect(OTHER)
    assert dialogue.context.access.to_list() == counted


@pytest.mark.slow
async def test_nothing_stays_held_wherever_a_session_is_cancelled(make_dialogue, soon):
    """Cancelling a session at any await releases all of its memory."""

    async def visit(dialogue):
        budget = dialogue.context.accounts.requests
        budget.quota = Quota(total=2**20, part=1.0)
        other = budget.try_reserve(OTHER, 3 * 2**18)
        dialogue.send(Hello(id=0, version=1), Ping(id=1), Embed(id=2, input=("a", "b")))
        dialogue.send(Status(id=3))
        dialogue.writer.write(LARGE)
        await soon(lambda: budget._waiting or dialogue.task.done())
        budget.quota = Quota(total=2**26, part=1.0)
        other.release()
        return [await dialogue.reply(request_id) for request_id in (0, 1, 2, 3, 9)]

    def make():
        return make_dialogue(hello=False)

    async for dialogue in cancelled_at_every_await(make, visit):
        assert held(dialogue.context) == 0


async def test_status_tells_what_is_held_by_whom(make_dialogue, tiny):
    """The status reports the memory budgets, and what each peer and user holds."""
    model = tiny()
    dialogue = await make_dialogue(model, memory_bytes=2**40)
    model.gate.clear()
    dialogue.send(Embed(id=1, input=("a",)))
    await model.began()
    memory = (await dialogue.ask(Status(id=2)))["status"]["memory"]
    assert memory["ceiling_bytes"] == 2**40
    assert memory["budget_bytes"] >= memory["budget_of_a_peer_bytes"] > memory["held_bytes"] > 0
    assert list(memory["held_by_peer"]) == [f"pid {os.getpid()} (uid {os.getuid()})"]
    assert list(memory["held_by_user"]) == [str(os.getuid())]
    assert memory["control"]["held_bytes"] > CONNECTION_BYTES


async def test_too_little_memory_is_said_and_served_with(make_dialogue):
    """Scarce memory is logged, and requests are still served."""
    with capture_logs() as events:
        dialogue = await make_dialogue(memory_bytes=1)
    (event,) = (event for event in events if event["event"] == "memory.scarce")
    assert event["left_bytes"] < 0
    assert event["budget_bytes"] > 4 * Limits().max_frame_bytes
    assert (await dialogue.ask(Embed(id=1, input=("a",))))["ok"]


def test_a_socket_knows_whether_its_other_end_is_open():
    """`has_left` detects a closed peer without reading what is still in the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours:
        with theirs:
            theirs.send(b"unread")
            assert not has_left(ours)
        assert has_left(ours)


async def test_a_connection_that_was_closed_at_this_end_has_left():
    """`has_left` detects a socket that was closed at this end, as by a failed write."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with theirs:
        _, writer = await asyncio.open_unix_connection(sock=ours)
        sock = writer.get_extra_info("socket")
        assert not has_left(sock)
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert has_left(sock)
