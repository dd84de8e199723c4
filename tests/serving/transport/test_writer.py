"""Writing frames to one peer, one at a time, while it keeps reading."""

import asyncio
import socket

import pytest

from sidecar.serving.admission.memory_estimator import LONG_READ_BYTES
from sidecar.serving.transport.channel import Channel
from sidecar.serving.transport.writer import FrameWriter

from ..conftest import PATIENCE

FRAMES = [bytes([number]) * 10**6 for number in range(4)]


@pytest.fixture
async def make_outgoing():
    """A factory of writers, with their channel, the other end's socket and the logged stalls."""
    made = []

    async def make(stall_seconds=PATIENCE):
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        theirs.setblocking(False)
        channel, stalled = Channel(bytearray(LONG_READ_BYTES)), []
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, ours)
        made.append((channel, theirs))
        return FrameWriter(channel, stall_seconds, stalled.append), channel, theirs, stalled

    yield make
    for channel, theirs in made:
        theirs.close()
        await channel.close(0)
        await asyncio.sleep(0)


async def taken(theirs):
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while piece := await loop.sock_recv(theirs, 2**16):
            data += piece
    return data


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_frames_go_out_one_after_the_other(make_outgoing):
    """Frames arrive in order, and at most one is buffered for a peer that does not read."""
    outgoing, channel, theirs, stalled = await make_outgoing()
    sending = [asyncio.create_task(outgoing.send(frame)) for frame in FRAMES]
    await turns()
    assert 0 < channel.unsent < 10**6
    assert not any(task.done() for task in sending)
    taking = asyncio.create_task(taken(theirs))
    await asyncio.wait_for(asyncio.gather(*sending), PATIENCE)
    await outgoing.hang_up()
    assert await taking == b"".join(FRAMES)
    assert stalled == []


async def test_a_frame_that_nobody_takes_ends_the_connection(make_outgoing):
    """An unread frame is reported once, ends the connection and unblocks its senders."""
    outgoing, channel, theirs, stalled = await make_outgoing(stall_seconds=0.01)
    sending = [asyncio.create_task(outgoing.send(frame)) for frame in FRAMES]
    await asyncio.wait_for(asyncio.gather(*sending), PATIENCE)
    assert stalled == ["a reply to be read"]
    assert channel.is_closing
    outgoing.write(b"more")
    await turns()
    rest = await taken(theirs)
    assert FRAMES[0].startswith(rest)


async def test_a_short_frame_waits_for_nobody(make_outgoing):
    """A short frame is written at once, even while another frame is being read."""
    outgoing, _, theirs, _ = await make_outgoing()
    sending = asyncio.create_task(outgoing.send(FRAMES[1]))
    await turns()
    outgoing.write(b"short")
    taking = asyncio.create_task(taken(theirs))
    await asyncio.wait_for(sending, PATIENCE)
    await outgoing.hang_up()
    assert await taking == FRAMES[1] + b"short"


async def test_the_last_bytes_have_a_moment(make_outgoing, monkeypatch):
    """When a connection is closed, there is time to send the last bytes."""
    from sidecar.serving.transport import writer as module

    monkeypatch.setattr(module, "_LINGER_SECONDS", 20 * module._LINGER_SECONDS)  # for busy hosts
    outgoing, _, theirs, _ = await make_outgoing()
    outgoing.write(FRAMES[2])
    leaving = asyncio.create_task(outgoing.hang_up())
    await turns()
    assert not leaving.done()
    assert await taken(theirs) == FRAMES[2]
    await asyncio.wait_for(leaving, PATIENCE)
