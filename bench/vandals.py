"""The peers that nobody wants: `python -m bench.vandals KIND SOCKET SEED`.

Each kind is a process of its own, and goes on until its stdin ends; then it prints what it has
done, as JSON. That the daemon goes away in between is nothing to it.
"""

import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgpack

from bench.children import last_words
from client_lib import AsyncClient
from client_lib.wire.codec import encode
from client_lib.wire.errors import SidecarError
from client_lib.wire.frames import HEADER_BYTES
from client_lib.wire.messages import Hello, request_to_map
from client_lib.wire.protocol import VERSION

_HELLO = encode(request_to_map(Hello(id=0, version=VERSION, client="vandal")))
_WORDS = ("one", "two", "copper", "museum", "passport", "opera", "bread", "yeast")
_READ_BYTES = 4_096
_SECONDS = 0.2  # for which an answer is waited for, or a write may take
_STOP_SECONDS = 30.0
_STEPS_A_SECOND = 50
_IDLERS = 4  # connections that are held and never read
_BURST = 32  # connections that are opened and dropped at once
_NO_REQUESTS: tuple[Mapping[str, Any], ...] = (
    {}, {"op": 1}, {"op": "nonsense"}, {"op": "embed"}, {"op": "embed", "input": []},
    {"op": "embed", "input": [b"bytes"]}, {"op": "embed", "input": ["a"], "dimensions": -1},
    {"op": "embed", "input": ["a"], "model": "none such"}, {"op": "cancel", "target": "x"},
    {"op": "rerank", "query": 1, "documents": ["a"]}, {"op": "hello", "version": 1},
)  # fmt: skip


class Vandals:
    """A process of each kind while it is entered; afterwards `done` says what they did."""

    def __init__(self, path: Path, seed: int) -> None:
        self._arguments = (str(path), str(seed))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.done: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for kind in _KINDS:
            command = [sys.executable, "-m", "bench.vandals", kind, *self._arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for done in last_words(self._processes, _STOP_SECONDS):
            self.done.update(done)


class _Vandal:
    def __init__(self, path: str, seed: str) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.stop = threading.Event()

    @contextmanager
    def connected(self, greeting: bytes = _HELLO) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(self.path)
            sock.sendall(greeting)
            yield sock

    def texts(self) -> list[str]:
        # Few and short: what they cost is theirs by right, and would be the well-behaved's loss.
        chance = self.chance
        return [
            " ".join(chance.choices(_WORDS, k=chance.randint(1, 20)))
            for _ in range(chance.randint(1, 3))
        ]

    def embed(self, request_id: int) -> bytes:
        return encode({"op": "embed", "id": request_id, "input": self.texts()})

    def repeat(self, step: Callable[["_Vandal"], None]) -> None:
        while not self.stop.wait(self.chance.expovariate(_STEPS_A_SECOND)):
            with suppress(OSError):
                step(self)


def _garble(vandal: _Vandal) -> None:
    """Send what is no frame, or no request; look at the answer or do not."""
    chance = vandal.chance
    data, frames = chance.choice(_GARBAGE)(vandal)
    with vandal.connected(_HELLO if chance.random() < 0.8 else b"") as sock:
        sock.sendall(data)
        vandal.done["garbage frames sent"] += frames
        if chance.random() < 0.5:
            sock.recv(_READ_BYTES)


def _noise(vandal: _Vandal) -> tuple[bytes, int]:
    return vandal.chance.randbytes(vandal.chance.randint(1, 300)), 1


def _framed_noise(vandal: _Vandal) -> tuple[bytes, int]:
    return _framed(_noise(vandal)[0]), 1


def _too_long(vandal: _Vandal) -> tuple[bytes, int]:
    length = vandal.chance.randint(2**24 + 1, 2**32 - 1)
    return length.to_bytes(HEADER_BYTES, "big") + _noise(vandal)[0], 1


def _half(vandal: _Vandal) -> tuple[bytes, int]:
    whole = vandal.embed(1)
    return whole[: vandal.chance.randrange(1, len(whole))], 1


def _damaged(vandal: _Vandal) -> tuple[bytes, int]:
    frame = bytearray(vandal.embed(1))
    for _ in range(vandal.chance.randint(1, 4)):
        frame[vandal.chance.randrange(HEADER_BYTES, len(frame))] = vandal.chance.randrange(256)
    return bytes(frame), 1


def _no_map(vandal: _Vandal) -> tuple[bytes, int]:
    return _framed(msgpack.packb(vandal.chance.choice(([1, 2], "text", 7, None, {1: 2})))), 1


def _nested(vandal: _Vandal) -> tuple[bytes, int]:
    opening = vandal.chance.choice((b"\x91", b"\xdc\xff\xff", b"\x81\xa1a"))
    return _framed(b"\x81\xa1a" + opening * vandal.chance.randint(1, 2_000)), 1


def _no_requests(vandal: _Vandal) -> tuple[bytes, int]:
    # With ids of their own: each is answered, and the connection lives.
    count = vandal.chance.randint(1, 200)
    wrong = vandal.chance.choices(_NO_REQUESTS, k=count)
    return b"".join(encode({"id": i + 1, **each}) for i, each in enumerate(wrong)), count


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


_GARBAGE: tuple[Callable[[_Vandal], tuple[bytes, int]], ...] = (
    _noise, _framed_noise, _too_long, _half, _damaged, _no_map, _nested,
    _no_requests, _no_requests, _no_requests,
)  # fmt: skip


def _leave(vandal: _Vandal) -> None:
    """Ask, and hang up before the answer, or in the middle of it."""
    chance = vandal.chance
    with vandal.connected() as sock:
        sock.sendall(b"".join(vandal.embed(i + 1) for i in range(chance.randint(1, 4))))
        if chance.random() < 0.7:
            time.sleep(chance.uniform(0, 0.05))
            vandal.done["disconnects mid-batch"] += 1
        else:
            sock.recv(chance.randint(1, 200))
            vandal.done["disconnects mid-reply"] += 1


def _drop(vandal: _Vandal) -> None:
    """Open many connections, and drop them."""
    held = []
    with suppress(OSError):
        for _ in range(_BURST):
            sock = socket.socket(socket.AF_UNIX)
            held.append(sock)
            sock.settimeout(_SECONDS)
            sock.connect(vandal.path)
            sock.sendall(vandal.chance.choice((b"", _HELLO, _HELLO[:7])))
            vandal.done["connections opened and dropped"] += 1
    for sock in held:
        sock.close()
    vandal.stop.wait(0.1)


def _idle(vandal: _Vandal) -> None:
    """Ask for more than the socket holds, and never read."""
    held = []
    short = encode({"op": "embed", "id": 1, "input": ["a"] * 300})
    pings = b"".join(encode({"op": "ping", "id": i}) for i in range(2, 20_000))
    for _ in range(_IDLERS):
        sock = socket.socket(socket.AF_UNIX)
        held.append(sock)
        sock.settimeout(_SECONDS)
        with suppress(OSError):
            sock.connect(vandal.path)
            vandal.done["slow readers"] += 1
            sock.sendall(_HELLO + short + pings)
    vandal.stop.wait(vandal.chance.uniform(1, 4))
    for sock in held:
        sock.close()


async def _give_up(vandal: _Vandal) -> None:
    """Cancel calls of a client that goes on being used."""
    async with AsyncClient(vandal.path) as client:
        while not vandal.stop.is_set():
            try:
                async with asyncio.timeout(vandal.chance.uniform(0, 0.05)):
                    await client.embed(vandal.texts())
            except TimeoutError:
                vandal.done["requests cancelled"] += 1
            except SidecarError:
                await asyncio.sleep(_SECONDS)


_KINDS: Mapping[str, Callable[[_Vandal], None]] = {
    "garble": lambda vandal: vandal.repeat(_garble),
    "leave": lambda vandal: vandal.repeat(_leave),
    "drop": lambda vandal: vandal.repeat(_drop),
    "idle": lambda vandal: vandal.repeat(_idle),
    "give_up": lambda vandal: asyncio.run(_give_up(vandal)),
}


def main(kind: str, path: str, seed: str) -> None:
    vandal = _Vandal(path, f"{seed} {kind}")

    def listen() -> None:
        sys.stdin.read()
        vandal.stop.set()

    threading.Thread(target=listen).start()
    _KINDS[kind](vandal)
    print(json.dumps(vandal.done))


if __name__ == "__main__":
    main(*sys.argv[1:])
