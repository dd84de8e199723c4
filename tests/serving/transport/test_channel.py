"""A connection's byte streams: complete, in order, and with few bytes buffered."""

import asyncio
import socket
from contextlib import suppress

import pytest

from sidecar.serving.admission.memory_estimator import LONG_READ_BYTES
from sidecar.serving.transport.channel import UNSENT_BYTES, Channel

from ..conftest import PATIENCE

DATA = bytes(range(251)) * 4_000  # a million bytes, no two neighbours equal
assert len(DATA) > 4 * LONG_READ_BYTES


@pytest.fixture
async def ends():
    """A channel and the socket at its other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    theirs.setblocking(False)
    channel = Channel(bytearray(LONG_READ_BYTES))
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: channel, ours)
    yield channel, theirs
    theirs.close()
    await channel.close(0)
    await asyncio.sleep(0)


async def all_of(theirs):
    """Return everything that arrives at the other end, up to the end of the stream."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while piece := await loop.sock_recv(theirs, 2**16):
            data += piece
    return data


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("most", [1, 100, 4_096, LONG_READ_BYTES])
async def test_all_bytes_arrive_in_order_and_few_are_kept(ends, most):
    """All bytes arrive in order, and at most twice the size of the last read is buffered."""
    channel, theirs = ends
    data = DATA[: 200 * most]
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(theirs, data))
    arrived = b""
    async with asyncio.timeout(PATIENCE):
        while len(arrived) < len(data):
            piece = await channel.read(most)
            assert 0 < len(piece) <= most
            arrived += piece
            await turns(3)
            assert channel.kept <= 2 * most
    assert arrived == data
    await sending


async def test_nothing_is_taken_in_before_somebody_reads(ends):
    """Before the first read, a channel buffers a single byte."""
    channel, theirs = ends
    theirs.send(b"x" * 10_000)
    await turns()
    assert channel.kept == 1
    assert await channel.read(1) == b"x"
    assert len(await channel.read(4_000)) == 4_000


async def test_a_read_that_was_given_up_loses_nothing(ends):
    """After a cancelled read, the next one returns what has arrived meanwhile."""
    channel, theirs = ends
    reading = asyncio.create_task(channel.read(100))
    await turns()
    reading.cancel()
    await turns()
    theirs.send(b"abc")
    await turns()
    assert channel.kept == 3
    assert await channel.read(100) == b"abc"


async def test_who_has_said_all_is_still_answered(ends):
    """A peer that has shut down its sending side can still be answered; reads return b""."""
    channel, theirs = ends
    theirs.send(b"abc")
    theirs.shutdown(socket.SHUT_WR)
    assert await channel.read(100) == b"abc"
    assert [await channel.read(100) for _ in range(2)] == [b"", b""]
    assert not channel.is_closing
    channel.write(b"answer")
    await channel.close(PATIENCE)
    assert await all_of(theirs) == b"answer"


async def test_an_end_wakes_who_reads(ends):
    """A read returns b"" when the peer closes the connection."""
    channel, theirs = ends
    reading = asyncio.create_task(channel.read(100))
    await turns()
    theirs.close()
    assert await asyncio.wait_for(reading, PATIENCE) == b""


async def test_an_abort_wakes_who_reads(ends):
    """A read returns b"" when the channel is aborted."""
    channel, _ = ends
    reading = asyncio.create_task(channel.read(100))
    await turns()
    channel.abort()
    assert await asyncio.wait_for(reading, PATIENCE) == b""
    assert channel.is_closing


async def test_a_drain_lasts_until_the_peer_has_taken_enough(ends):
    """`drain` returns at once after a small write, but waits for the peer after a large one."""
    channel, theirs = ends
    channel.write(b"abc")
    await asyncio.wait_for(channel.drain(), PATIENCE)
    assert channel.unsent == 0
    channel.write(DATA)
    draining = asyncio.create_task(channel.drain())
    await turns()
    assert channel.unsent > UNSENT_BYTES
    assert not draining.done()
    taking = asyncio.create_task(all_of(theirs))
    await asyncio.wait_for(draining, PATIENCE)
    assert channel.unsent <= UNSENT_BYTES
    await channel.close(PATIENCE)
    assert await taking == b"abc" + DATA


async def test_a_little_more_than_may_be_untaken_has_to_be_waited_for(ends):
    """`drain` waits if, and only if, more than `UNSENT_BYTES` are unsent."""
    channel, theirs = ends
    with suppress(BlockingIOError):
        while True:  # until the kernel's buffer is full
            channel._transport.get_extra_info("socket")._sock.send(DATA)
    channel.write(DATA[:UNSENT_BYTES])
    await asyncio.wait_for(channel.drain(), PATIENCE)
    channel.write(b"x")
    draining = asyncio.create_task(channel.drain())
    await turns()
    assert not draining.done()
    theirs.close()
    await asyncio.wait_for(draining, PATIENCE)  # a peer that has left is not waited for


async def test_what_was_written_has_a_moment_to_go_out(ends):
    """`close` allows time to send what has been written, and then ends the stream."""
    channel, theirs = ends
    channel.write(DATA)
    closing = asyncio.create_task(channel.close(PATIENCE))
    await turns()
    assert not closing.done()
    assert await all_of(theirs) == DATA
    await closing


async def test_who_takes_nothing_is_not_waited_for(ends):
    """After that time, `close` drops what the peer has not read."""
    channel, theirs = ends
    channel.write(DATA)
    await asyncio.wait_for(channel.close(0.01), PATIENCE)
    await turns()
    assert DATA.startswith(rest := await all_of(theirs))
    assert len(rest) < len(DATA)
