"""The demo's client processes: each sends all its texts at once, one text per request."""

import asyncio
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client_lib import AsyncClient, ConnectionLost, Timings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's vector, float32 [d], its latency at the caller in seconds, and its timings."""

    vector: NDArray[np.float32]
    seconds: float
    timings: Timings


def run_crowd(socket: Path, texts: Sequence[str], processes: int) -> list[Answer]:
    """Send `texts` from `processes` concurrent processes and return the answers, in order.

    Raises `ConnectionLost` if one of them died.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    crowd = []
    for number in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        arguments = (socket, texts[number::processes], barrier, sender)
        process = context.Process(target=_client, args=arguments)
        process.start()
        sender.close()  # our copy, so that `recv` raises EOFError if the child dies
        crowd.append((process, receiver))
    try:
        shares = [receiver.recv() for _, receiver in crowd]
    except EOFError:
        raise ConnectionLost("a client process of the demo ended unexpectedly") from None
    for process, _ in crowd:
        process.join()
    return [shares[i % processes][i // processes] for i in range(len(texts))]


def _client(
    socket: Path, texts: Sequence[str], barrier: "Barrier", sender: "Connection[Any, Any]"
) -> None:
    sender.send(asyncio.run(_ask_all(socket, texts, barrier)))


async def _ask_all(socket: Path, texts: Sequence[str], barrier: "Barrier") -> list[Answer]:
    async with AsyncClient(socket, timeout=_SECONDS) as client:
        await client.ping()
        barrier.wait(_SECONDS)  # start together, once every process is connected
        return await asyncio.gather(*(_ask(client, text) for text in texts))


async def _ask(client: AsyncClient, text: str) -> Answer:
    started = perf_counter()
    reply = await client.embed([text])
    return Answer(reply.vectors[0], perf_counter() - started, reply.timings)
