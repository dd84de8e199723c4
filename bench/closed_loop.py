"""Clients that each ask when they have their last answer, all from this process."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from client_lib import AsyncClient

_TIMEOUT = 120.0
_FEWEST = 3  # answers, however long they take


@dataclass(frozen=True, slots=True)
class Load:
    """What was answered a second, and the median time of a request."""

    texts: float
    tokens: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    seconds: float
    texts: int
    tokens: int


def run(socket: Path, requests: Iterator[list[str]], clients: int, seconds: float) -> Load:
    """Ask for about that long. No two of `requests` are alike: the daemon would compute one."""
    answers: list[_Answer] = []
    asyncio.run(_ask(socket, requests, clients, seconds, answers))
    return _load(answers)


async def _ask(
    socket: Path,
    requests: Iterator[list[str]],
    clients: int,
    seconds: float,
    answers: list[_Answer],
) -> None:
    async with AsyncExitStack() as stack:
        crowd = [
            await stack.enter_async_context(AsyncClient(socket, timeout=_TIMEOUT))
            for _ in range(clients)
        ]
        await asyncio.gather(*(client.ping() for client in crowd))
        until = time.perf_counter() + seconds
        await asyncio.gather(*(_ask_until(each, requests, until, answers) for each in crowd))


async def _ask_until(
    client: AsyncClient, requests: Iterator[list[str]], until: float, answers: list[_Answer]
) -> None:
    while time.perf_counter() < until or len(answers) < _FEWEST:
        texts = next(requests)
        begun = time.perf_counter()
        reply = await client.embed(texts)
        now = time.perf_counter()
        answers.append(_Answer(now, now - begun, len(texts), reply.usage.total_tokens))


def _load(answers: Sequence[_Answer]) -> Load:
    # From the first answer to the last: each end is one, and the daemon was busy in between.
    first, *others = answers
    elapsed = others[-1].at - first.at
    return Load(
        texts=sum(each.texts for each in others) / elapsed,
        tokens=sum(each.tokens for each in others) / elapsed,
        p50_ms=1e3 * median(each.seconds for each in answers),
    )
