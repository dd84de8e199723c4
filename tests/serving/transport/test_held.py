"""The memory reserved for a connection is never less than what it uses."""

import asyncio
import socket
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_lib.wire.codec import encode
from client_lib.wire.messages import Embed, Hello, Ping, Status, request_to_map
from client_lib.wire.protocol import Received
from sidecar.serving.admission.peer import Peer
from sidecar.serving.context import ServerContext
from sidecar.serving.engine.engine import Engine
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle, State
from sidecar.serving.transport.session import Session

from ...sizes import reachable
from ..conftest import PATIENCE, TinyModel

HELLO = encode(request_to_map(Hello(id=0, version=1)))
TEXTS = {
    "short": "a",
    "ascii": "word " * 3_000,
    "one emoji": "x" * 100_000 + "😀",
    "chinese": "語" * 50_000,
}
FRAMES = st.lists(st.tuples(st.sampled_from([*TEXTS, "ping", "status"]), st.integers(1, 4)))
# The connection's own objects, before it is admitted and after it has ended.
_OBJECTS = 16 * 1024


def frame(kind: str, count: int) -> bytes:
    match kind:
        case "ping":
            return encode(request_to_map(Ping(id=2)))
        case "status":
            return encode(request_to_map(Status(id=3)))
    return encode(request_to_map(Embed(id=1, input=(TEXTS[kind],) * count)))


class Watched:
    """A session whose frames are observed while they are decoded."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._take = session._connection.take
        self._steps: weakref.ref[object] = weakref.ref(self)
        session._connection.take = self._watched  # type: ignore[method-assign]

    def _watched(self) -> Iterator[Received | None]:
        steps = self._take()
        self._steps = weakref.ref(steps)
        return steps

    def held_in_memory(self) -> int:
        """Return the size of the bytes that have arrived, and of what they are decoded to.

        A long frame's buffer has its full length at once, but uses memory only as bytes arrive.
        """
        steps, kept = self._steps(), self._session._channel.kept
        if steps is None or steps is self:
            return kept + self._session._connection.buffered
        return kept + reachable(steps)


def reserved(context: ServerContext) -> int:
    budgets = (context.accounts.requests, context.accounts.decoding, context.accounts.control)
    return sum(budget.to_map()["held_bytes"] for budget in budgets)


async def opened() -> ServerContext:
    model = TinyModel()
    engine = Engine([model], {model.name: CostModel()}, threads=1, bounds=QueueLimits())
    engine.start()
    context = ServerContext(engine, ServeSettings(socket=Path("unused"), threads=1), Lifecycle())
    context.life.move(State.SERVING)
    return context


async def converse(context: ServerContext, stream: bytes, cuts: list[int]) -> list[tuple[int, int]]:
    """Send a session the stream in pieces; return the bytes in use and reserved at each step."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    peer = Peer.of(ours)
    admission = context.connect(peer)
    session = Session(context, ours, peer)
    watched = Watched(session)
    running = asyncio.create_task(session.run())
    running.add_done_callback(lambda _: admission.close())
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    seen = []

    async def send() -> None:
        with suppress(ConnectionError):  # an invalid frame closes it
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                writer.write(stream[start:end])
                await writer.drain()
            writer.write_eof()

    async def receive() -> None:
        with suppress(ConnectionError):
            await reader.read(-1)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(send())
        group.create_task(receive())
        while not running.done():
            seen.append((watched.held_in_memory(), reserved(context)))
            await asyncio.sleep(0)
    writer.close()
    await asyncio.gather(running, writer.wait_closed(), return_exceptions=True)
    await context.engine.idle()
    return [*seen, (0, reserved(context))]


@pytest.mark.slow
def test_the_books_are_never_behind() -> None:
    """Reservations cover the memory in use however frames arrive, and are all released."""
    with asyncio.Runner() as runner:
        context = runner.run(opened())

        @given(FRAMES, st.lists(st.floats(0, 1), max_size=5), st.integers(-2_000, 2**24))
        @settings(max_examples=100, deadline=None)
        def covers(frames: list[tuple[str, int]], cuts: list[float], lie: int) -> None:
            stream = HELLO + b"".join(frame(*each) for each in frames)
            body = b"\x82\xa2id\x09" + b"z" * 3_000
            stream += max(0, len(body) + lie).to_bytes(4, "big") + body
            at = sorted(round(cut * len(stream)) for cut in cuts)
            *steps, (_, left) = runner.run(converse(context, stream, at))
            assert all(used <= booked + _OBJECTS for used, booked in steps)
            assert left == 0

        try:
            covers()
        finally:
            runner.run(context.engine.stop())
