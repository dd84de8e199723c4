"""A small model with real arithmetic whose forwards can be blocked, and fixtures based on it."""

import asyncio
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import structlog

from client_lib.wire.codec import FrameDecoder
from client_lib.wire.messages import Hello
from client_lib.wire.protocol import ClientConnection, Limits
from sidecar.models.rows import Row
from sidecar.serving.admission.peer import Peer
from sidecar.serving.context import ServerContext
from sidecar.serving.engine.engine import Engine
from sidecar.serving.scheduler.cost_model import CostModel
from sidecar.serving.scheduler.limits import QueueLimits
from sidecar.serving.settings import ServeSettings
from sidecar.serving.state import Lifecycle, State
from sidecar.serving.transport.session import Session

PATIENCE = 20.0  # timeout of a test's waits, in seconds
_TABLE = np.random.default_rng(5).normal(size=(128, 8)).astype(np.float32)


@dataclass(eq=False)
class TinyModel:
    """Characters are tokens, and a text's vector is the mean of its characters' rows.

    A cross-encoder scores a pair by how many of the query's characters are in the document. While
    `gate` is closed, forwards of texts that contain `holds` wait for it; `began` waits for forwards
    to start. "!" in a text raises ValueError, "~" raises SystemExit, which must not be contained
    anywhere, and "?" yields a vector that is not finite. "" has no tokens and a vector of zeros.
    """

    name: str = "tiny"
    task: str = "embed"
    dimensions: int = 8
    least_tokens: int = 1
    max_tokens: int = 32
    intra_op_threads: int = 1
    normalize: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    holds: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    order: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.gate.set()
        self._started = threading.Semaphore(0)

    def tokenize(self, texts):
        return [self._row(text) for text in texts]

    def _row(self, text):
        joined = text if isinstance(text, str) else "\n".join(text)
        ids = np.frombuffer(joined.encode(), np.uint8).astype(np.int64)
        kept = ids[: self.max_tokens]
        return Row(kept, np.zeros_like(kept), truncated=len(ids) > len(kept))

    def forward_parallel(self, row):
        return self.forward(row)

    def forward(self, row):
        text = bytes(row.ids.astype(np.uint8)).decode()
        self.order.append(text)
        self._started.release()
        if self.holds in text:
            assert self.gate.wait(PATIENCE)
        if "!" in text:
            raise ValueError("this text is poison")
        if "~" in text:
            raise SystemExit(3)
        if "?" in text:
            return np.full(self.dimensions, np.inf, np.float32)
        if not text:
            return np.zeros(self.dimensions, np.float32)
        if self.task == "rerank":
            query, document = text.split("\n")
            return np.array([len(set(query) & set(document))], np.float32)
        return _TABLE[row.ids].mean(axis=0)

    def describe(self):
        return {"name": self.name, "task": self.task}

    async def began(self, forwards=1):
        """Wait until `forwards` more forwards have started."""
        for _ in range(forwards):
            assert await asyncio.to_thread(self._started.acquire, timeout=PATIENCE)

    def vector(self, text):
        """Return the vector of `text`, computed by a plain formula."""
        mean = _TABLE[self._row(text).ids].mean(axis=0)
        return mean / np.sqrt((mean * mean).sum(dtype=np.float32)) if self.normalize else mean


@pytest.fixture(autouse=True)
def quiet():
    """Discard events unless a test captures them."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def soon():
    """A function that waits until a condition of another thread or task holds.

    It yields to the event loop at first, and then sleeps, which releases the GIL.
    """

    async def wait(condition):
        async with asyncio.timeout(PATIENCE):
            for step in count():
                if condition():
                    return
                await asyncio.sleep(0 if step < 100 else 0.001)

    return wait


@pytest.fixture
def tiny():
    """A factory of models; their gates are opened at the end, so that threads can be joined."""
    made = []

    def make(**fields):
        made.append(TinyModel(**fields))
        return made[-1]

    yield make
    for model in made:
        model.gate.set()


@pytest.fixture
async def make_engine(tiny):
    """A factory of started engines, which are stopped at the end."""
    made = []

    def make(*models, threads=1, bounds=None, **options):
        costs = {model.name: CostModel() for model in models}
        engine = Engine(models, costs, threads=threads, bounds=bounds or QueueLimits(), **options)
        engine.start()
        made.append((engine, models))
        return engine

    yield make
    for engine, models in made:
        for model in models:
            model.gate.set()
        await engine.stop()


class Dialogue:
    """The client's end of a session over a socket pair, without the client library."""

    def __init__(self, session, reader, writer, context):
        self.session, self.reader, self.writer, self.context = session, reader, writer, context
        self.task = asyncio.create_task(session.run())
        self._connection = ClientConnection()
        self._replies = {}
        self._decoder = FrameDecoder(2**30)

    def send(self, *requests):
        for request in requests:
            self.writer.write(self._connection.send(request))

    async def reply(self, request_id):
        """Return the reply to a request as a map, or None if the connection ends without one."""
        async with asyncio.timeout(PATIENCE):
            while request_id not in self._replies:
                if not (data := await self._read()):
                    return None
                for message in self._decoder.feed(data):
                    assert message["id"] not in self._replies, "answered twice"
                    self._replies[message["id"]] = message
        return self._replies.pop(request_id)

    async def _read(self):
        with suppress(ConnectionError):  # the session ended without reading everything
            return await self.reader.read(2**16)
        return b""

    async def ask(self, request):
        self.send(request)
        return await self.reply(request.id)

    async def ended(self):
        """Wait until the session has ended on its own and its admission is released."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)
        await asyncio.sleep(0)


@pytest.fixture
async def make_dialogue(make_engine, tiny):
    """A factory of sessions that have exchanged hello."""
    made = []

    async def make(*models, hello=True, state=State.SERVING, limits=None, **options):
        engine = make_engine(*(models or (tiny(),)))
        settings = ServeSettings(
            socket=Path("unused"),
            threads=1,
            limits=limits or Limits(),
            **options,
        )
        context = ServerContext(engine, settings, Lifecycle())
        context.life.move(State.SERVING)
        if state is not State.SERVING:
            context.life.move(state)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        peer = Peer.of(ours)
        admission = context.connect(peer)
        session = Session(context, ours, peer)
        reader, writer = await asyncio.open_unix_connection(sock=theirs)
        dialogue = Dialogue(session, reader, writer, context)
        dialogue.task.add_done_callback(lambda _: admission.close())
        made.append(dialogue)
        if hello:
            assert (await dialogue.ask(Hello(id=0, version=1)))["ok"]
        return dialogue

    yield make
    for dialogue in made:
        dialogue.writer.close()
        dialogue.task.cancel()
        await asyncio.gather(dialogue.task, dialogue.writer.wait_closed(), return_exceptions=True)
