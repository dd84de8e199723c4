"""Which peers are admitted, and what happens to those that stall."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from itertools import count

import pytest
from structlog.testing import capture_logs

from client_lib.wire.codec import encode
from client_lib.wire.errors import Forbidden, Overloaded
from client_lib.wire.messages import Embed, Ping, request_to_map
from sidecar.serving.admission.access import OPERATORS_OWN, AccessControl, AccessPolicy
from sidecar.serving.admission.peer import Peer

SOMEBODY = Peer(pid=10, uid=1000, gid=1000, groups=frozenset({1000, 27}))


@pytest.mark.parametrize(
    ("policy", "admitted"),
    [
        (AccessPolicy(), True),
        (AccessPolicy(uids=frozenset({1000})), True),
        (AccessPolicy(uids=frozenset({0})), False),
        (AccessPolicy(gids=frozenset({27})), True),
        (AccessPolicy(gids=frozenset({28})), False),
        (AccessPolicy(uids=frozenset({0}), gids=frozenset({27})), True),
    ],
)
def test_a_peer_comes_in_by_its_user_or_any_of_its_groups(
    policy: AccessPolicy, admitted: bool
) -> None:
    """A peer is admitted by its user or any of its groups, and everybody is without a list."""
    refusal = AccessControl(policy, 100).refusal(SOMEBODY)
    assert refusal is None if admitted else isinstance(refusal, Forbidden)


def test_one_process_has_so_many_connections() -> None:
    """The connection limit is per process, and a closed connection makes room for another."""
    access = AccessControl(AccessPolicy(max_connections=2), 100)
    other = Peer(pid=11, uid=1000, gid=2000)
    for peer in (SOMEBODY, SOMEBODY, other):
        access.acquire(peer)
    with pytest.raises(Overloaded, match="this process already has 2 connections") as refused:
        access.acquire(SOMEBODY)
    assert refused.value.retry_after_ms == 1_000
    access.release(SOMEBODY)
    access.acquire(SOMEBODY)
    assert access.to_list() == [
        {"pid": 10, "uid": 1000, "gid": 1000, "connections": 2},
        {"pid": 11, "uid": 1000, "gid": 2000, "connections": 1},
    ]


def admit_all(access: AccessControl, uid: int) -> int:
    """Admit as many processes of a user as possible, with one connection each, and count them."""
    pids = count(1)
    admitted_count = 0
    while access.refusal(peer := Peer(next(pids), uid, uid)) is None:
        access.acquire(peer)
        admitted_count += 1
    return admitted_count


def test_no_user_has_all_connections() -> None:
    """No user gets all connections, however many processes it starts; the error reports counts."""
    access = AccessControl(AccessPolicy(), 100)
    assert [admit_all(access, uid) for uid in (1000, 1001, 1002)] == [75, 18, 5]
    with pytest.raises(Overloaded, match="user 1000 already has 75 of 98 open connections"):
        access.acquire(Peer(9_999, 1000, 1000))


def test_an_operator_comes_in_when_all_connections_are_taken() -> None:
    """Operators get a few extra connections when all others are taken."""
    access = AccessControl(AccessPolicy(), 100)
    for uid in range(1000, 1010):
        admit_all(access, uid)
    assert access.refusal(Peer(1, 2000, 2000)) is not None
    assert admit_all(access, 0) == OPERATORS_OWN
    assert access.refusal(Peer(1, 0, 0)) is not None


def test_what_is_for_operators_is_for_processes_that_have_none_yet() -> None:
    """The operators' extra connections are only for processes that have none yet."""
    access = AccessControl(AccessPolicy(), 100)
    for uid in range(1000, 1010):
        admit_all(access, uid)
    operator = Peer(1, os.geteuid(), 0)
    access.acquire(operator)
    assert isinstance(refusal := access.refusal(operator), Overloaded)
    assert refusal.retry_after_ms == 1_000
    assert access.refusal(Peer(2, os.geteuid(), 0)) is None
    assert isinstance(
        AccessControl(AccessPolicy(max_connections=0), 100).refusal(operator), Overloaded
    )


def test_rules_that_no_longer_admit_a_peer_hold_for_one_that_is_in() -> None:
    """A new policy applies to admitted peers, whose connections are counted until they close."""
    access = AccessControl(AccessPolicy(), 100)
    access.acquire(SOMEBODY)
    access.authorize(SOMEBODY)
    access.policy = AccessPolicy(uids=frozenset({7}))
    with pytest.raises(Forbidden, match="user 1000 is not allowed"):
        access.authorize(SOMEBODY)
    assert len(access.to_list()) == 1
    access.release(SOMEBODY)
    assert access.to_list() == []


def test_the_kernel_tells_who_is_there() -> None:
    """The kernel identifies the peer of a socket by process, user and groups."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = Peer.of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert peer.groups == {os.getgid(), *os.getgroups()}


_IN_GROUPS = """
import os, socket, sys
from sidecar.serving.admission.peer import Peer
os.setgroups(range(5_000, 5_000 + int(sys.argv[1])))
ours, theirs = socket.socketpair(socket.AF_UNIX)
print(Peer.of(ours).groups == {os.getgid(), *os.getgroups()})
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take groups")
@pytest.mark.parametrize("count", [0, 3, 256, 257, 5_000])
def test_the_kernel_tells_all_groups(count: int) -> None:
    """All supplementary groups of a peer are found, however many there are."""
    result = subprocess.run(
        [sys.executable, "-c", _IN_GROUPS, str(count)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True\n"


async def test_a_peer_that_may_no_longer_is_told_and_let_go(make_dialogue) -> None:
    """A connected peer that a reload no longer admits gets one error and is disconnected."""
    dialogue = await make_dialogue(hello=False)
    dialogue.context.access.policy = AccessPolicy(uids=frozenset({os.getuid() + 1}))
    refusal = await dialogue.reply(None)
    assert refusal["error"]["code"] == "forbidden"
    await dialogue.ended()
    assert dialogue.context.access.to_list() == []


async def test_a_frame_that_is_never_finished_ends_the_connection(make_dialogue) -> None:
    """An unfinished frame ends the connection, while whole frames may come at any interval."""
    dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=0.05))
    assert (await dialogue.ask(Ping(id=1)))["ok"]
    dialogue.writer.write(encode(request_to_map(Ping(id=2)))[:-1])
    await dialogue.ended()
    assert await dialogue.reply(2) is None


def test_a_peer_is_its_process_and_its_user() -> None:
    """A peer is named by process and user; root and the daemon's own user are operators."""
    peer = Peer(pid=10, uid=1000, gid=27)
    assert str(peer) == "pid 10 (uid 1000)"
    assert peer.named() == {"peer_pid": 10, "peer_uid": 1000, "peer_gid": 27}
    assert [Peer(1, uid, 0).is_operator for uid in (0, os.geteuid(), os.geteuid() + 1)] == [
        True, True, False,
    ]  # fmt: skip


class Clock:
    """A clock that advances by ten seconds whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10.0
        return self.now

    perf_counter = staticmethod(time.perf_counter)


async def test_a_frame_that_drips_ends_the_connection(make_dialogue, soon, monkeypatch) -> None:
    """The stall limit applies to a whole frame, not to each of its bytes."""
    monkeypatch.setattr("sidecar.serving.transport.reader.time", Clock())
    with capture_logs() as events:
        dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=45.0))
        for number, byte in enumerate(encode(request_to_map(Ping(id=1))), start=1):
            dialogue.writer.write(bytes([byte]))
            await soon(
                lambda number=number: (
                    dialogue.task.done()
                    or dialogue.session._connection.buffered == number
                    or dialogue.session._requests == 2
                )
            )
        assert await dialogue.reply(1) is None
        await dialogue.ended()
    (stalled,) = (event for event in events if event["event"] == "peer.stalled")
    assert (stalled["awaited"], stalled["seconds"]) == ("the rest of a frame", 45.0)
    assert stalled["peer_pid"] == os.getpid()


async def test_each_frame_has_a_time_of_its_own(make_dialogue, soon, monkeypatch) -> None:
    """The stall limit starts again with each frame."""
    monkeypatch.setattr("sidecar.serving.transport.reader.time", Clock())
    dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=25.0))
    for number in range(1, 10):
        frame = encode(request_to_map(Ping(id=number)))
        dialogue.writer.write(frame[:7])
        await soon(lambda: dialogue.session._connection.buffered == 7)
        dialogue.writer.write(frame[7:])
        assert (await dialogue.reply(number))["ok"]


async def test_a_peer_that_does_not_read_is_let_go(make_dialogue) -> None:
    """A peer that does not read its replies is disconnected, and its memory is released."""
    dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=0.05))
    dialogue.reader._transport.pause_reading()
    texts = ("a",) * 2_000
    dialogue.send(*(Embed(id=number, input=texts) for number in range(1, 40)))
    await dialogue.ended()
    assert dialogue.context.accepted.count == 0
    assert dialogue.context.access.to_list() == []


async def test_idle_peers_are_left_alone(make_dialogue) -> None:
    """A peer that has said hello may stay idle forever between frames."""
    dialogue = await make_dialogue(access=AccessPolicy(stall_seconds=0.05))
    await asyncio.sleep(0.1)
    for number in range(1, 4):
        assert (await dialogue.ask(Ping(id=number)))["ok"]


async def test_a_peer_that_does_not_say_hello_is_let_go(make_dialogue) -> None:
    """A peer that does not say hello in time is disconnected and logged."""
    with capture_logs() as events:
        dialogue = await make_dialogue(hello=False, access=AccessPolicy(stall_seconds=0.05))
        await dialogue.ended()
    (stalled,) = (event for event in events if event["event"] == "peer.stalled")
    assert stalled["awaited"] == "hello"
    assert dialogue.context.access.to_list() == []
