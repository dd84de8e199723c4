"""Kills and misbehaving peers do no harm to the clients of a real daemon.

`python -m bench faults` does the same for minutes, with more of each.
"""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from client_lib import Client
from client_lib.wire.codec import encode
from client_lib.wire.messages import Embed, Hello, Ping, request_to_map
from sidecar.models.model import load

from .daemon import Daemon

pytestmark = pytest.mark.slow

PATIENCE = 120
TEXTS = [f"text {i} " + "copper conducts heat better than steel " * (i % 7) for i in range(40)]
HELLO = encode(request_to_map(Hello(id=0, version=1)))
GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    HELLO + b"\xff\xff\xff\xff",  # a frame of 4 GiB
    HELLO + b"\x00\x00\x00\x01\xc1",  # not msgpack
    HELLO + b"\x00\x00\x00\x01\x90",  # not a map
    HELLO + encode({"op": "ping", "id": -1}),
    HELLO + b"".join(encode({"op": "nonsense", "id": i}) for i in range(1, 50)),
    HELLO + encode(request_to_map(Embed(id=1, input=("a",) * 30)))[:-5],  # half a frame
]

# LISTEN_PID must be the id of the process, so it has to be set by the process itself.
PASS_ON = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Inheriting(Daemon):
    """A daemon on a listening socket that the test owns and that outlives it."""

    def __init__(self, folder: Path, *flags: str) -> None:
        super().__init__(folder, *flags)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen()

    def launch(self) -> None:
        descriptor = self._listener.fileno()
        with self._log.open("ab") as events:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PASS_ON, str(descriptor), *self._command],
                stdout=events,
                env={"SIDECAR_DEVICE": "cpu", **os.environ},
                pass_fds=(descriptor,),
            )

    def stop(self) -> int:
        exit_code = super().stop()
        self._listener.close()
        return exit_code


@pytest.fixture(scope="module")
def alone(minilm_artifact: Path) -> list[bytes]:
    """Each text's vector, computed alone in this process."""
    model = load(minilm_artifact)
    vectors = [model.forward(model.tokenize([text])[0]) for text in TEXTS]
    return [(v / np.sqrt(np.square(v).sum(dtype=np.float32))).tobytes() for v in vectors]


@pytest.fixture
def inheriting(minilm_artifact: Path, tmp_path: Path) -> Iterator[Inheriting]:
    with Inheriting(tmp_path, "--embedding-model", str(minilm_artifact)) as daemon:
        yield daemon
    assert daemon.process is not None
    assert daemon.process.returncode == 0
    assert not [name for name in ("peer.failed", "loop.failed") if daemon.events(name)]


def wrong_answers(path: Path, alone: list[bytes], seed: int, requests: int) -> list[int]:
    """Embed a few texts at a time, and return the indices of those with a wrong vector."""
    chance = random.Random(seed)
    wrong: list[int] = []
    with Client(path, timeout=PATIENCE) as client:
        for _ in range(requests):
            picks = [chance.randrange(len(TEXTS)) for _ in range(chance.choice((1, 1, 5)))]
            vectors = client.embed([TEXTS[i] for i in picks]).vectors
            pairs = zip(picks, vectors, strict=True)
            wrong += [i for i, vector in pairs if vector.tobytes() != alone[i]]
    return wrong


def test_kills_under_load_lose_no_request(inheriting: Inheriting, alone: list[bytes]) -> None:
    """Six clients get every answer, and the right one, although three daemons are killed."""
    path = inheriting.socket
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(wrong_answers, path, alone, seed, 30) for seed in range(6)]
        for _ in range(3):
            with Client(path, timeout=PATIENCE) as client:
                while client.status()["requests"]["completed"] < 12:
                    assert not all(answer.done() for answer in answers), "too late to kill"
            inheriting.kill()
            # No daemon accepts, but the connection succeeds, and waits for the next daemon.
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
            inheriting.launch()
        assert [answer.result(PATIENCE) for answer in answers] == [[]] * 6


def test_bad_peers_keep_no_answer_from_the_good_one(
    inheriting: Inheriting, alone: list[bytes]
) -> None:
    """Good clients get every answer despite garbage, disconnects and peers that never read."""

    def disturb() -> None:
        for data in [*GARBAGE, HELLO + encode(request_to_map(Embed(id=1, input=("a",) * 8)))] * 40:
            with suppress(ConnectionError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(inheriting.socket))
                sock.sendall(data)

    with ExitStack() as held, ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            never_read(held.enter_context(socket.socket(socket.AF_UNIX)), inheriting.socket)
        disturbing = pool.submit(disturb)
        answers = [
            pool.submit(wrong_answers, inheriting.socket, alone, seed, 30) for seed in range(3)
        ]
        assert [answer.result(PATIENCE) for answer in answers] == [[]] * 3
        disturbing.result(PATIENCE)


def never_read(sock: socket.socket, path: Path) -> None:
    """Send requests on `sock`, without reading replies, until the daemon accepts no more."""
    sock.connect(str(path))
    sock.setblocking(False)
    with suppress(BlockingIOError, ConnectionError):
        sock.sendall(HELLO + encode(request_to_map(Embed(id=1, input=("a",) * 500))))
        for i in range(2, 200_000):
            sock.sendall(encode(request_to_map(Ping(id=i))))


CEILING = 384 * 2**20
HALF = (16 * 2**20).to_bytes(4, "big") + b"\x84"


def test_frames_that_are_never_finished_do_not_fill_the_memory(
    minilm_artifact: Path, tmp_path: Path, alone: list[bytes]
) -> None:
    """A process that starts a gigabyte of frames neither delays others nor exceeds the limit."""
    flags = ("--embedding-model", str(minilm_artifact), "--max-memory-bytes", str(CEILING))
    with Daemon(tmp_path, *flags) as daemon, ExitStack() as held, ThreadPoolExecutor(1) as pool:
        assert daemon.process is not None
        socks = [held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(60)]
        for sock in socks:
            sock.connect(str(daemon.socket))
            sock.sendall(HELLO + HALF)
            sock.setblocking(False)
        answers = pool.submit(wrong_answers, daemon.socket, alone, 0, 60)
        taken, most = [0] * len(socks), 0
        while not answers.done():
            for i, sock in enumerate(socks):
                with suppress(BlockingIOError):
                    if taken[i] < 15 * 2**20:
                        taken[i] += sock.send(bytes(2**20))
            most = max(most, psutil.Process(daemon.process.pid).memory_info().rss)
        assert answers.result() == []
        assert most < CEILING
        assert sum(taken) < CEILING < sum(15 * 2**20 for _ in socks)
