"""Many callers on one daemon: searches beside an indexer, equal clients, overload.

Every ratio is of two measurements of one daemon. The clients run on the same cores as it does.
"""

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles

import bench.texts
from bench.daemon import pause, running
from bench.report import Chart, Point, Result, Side, Table, point, spread, told
from client_lib import AsyncClient, Client, Overloaded
from client_lib.wire.messages import Priority
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name

_SEARCHES_A_SECOND = 10
_QUERY_WORDS = 8
_LONG_WORDS = 150
_EQUAL_CLIENTS = 8
_SPAWNING_SECONDS = 8  # until all of them have imported what they need
_PATIENCE_SECONDS = 1.0
_OVERLOAD = 3
_GENERATORS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench.texts.add_arguments(parser, count=640)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)


def measure(arguments: argparse.Namespace) -> Result:
    asked = bench.texts.read(arguments.data, arguments.texts)
    with running("--embedding-model", arguments.model) as socket:
        asyncio.run(_closed_loop(socket, asked, 16, 2))  # warm-up
        waits = _waits(socket, asked, arguments.seconds)
        equal = _equal_clients(socket, asked, arguments.seconds)
        loads = _loads(socket, asked, arguments.seconds, arguments.rounds)
    batch, lanes, one_lane = waits
    few, many, good = loads
    return Result(
        title=f"{display_name(arguments.model)}, {len(asked)} texts of mixed length",
        sides=(*waits, equal, *loads),
        figures={
            "search p99 beside a bulk indexer, ms": _p99(lanes.values),
            "the same in bulk batches": _p99(lanes.values) / batch.median,
            "the same, one lane, times as long": _p99(one_lane.values) / _p99(lanes.values),
            "Jain's index of equal processes": _jain(equal.values),
            "64 clients to 16": many.median / few.median,
            "goodput at overload, of the peak": good.median / few.median,
        },
        tables=_tables(waits, (equal, *loads)),
        charts=(_chart_of_waits((lanes, one_lane)), _chart_of_loads(loads)),
    )


def _waits(socket: Path, texts: Sequence[str], seconds: float) -> tuple[Side, Side, Side]:
    batch = _one_bulk_batch(socket, _long(texts))
    lanes = asyncio.run(_searches(socket, texts, "bulk", seconds))
    batch += _one_bulk_batch(socket, _long(texts))
    one_lane = asyncio.run(_searches(socket, texts, "interactive", seconds))
    return (
        Side("one bulk batch, alone", "ms", batch),
        Side("search beside a bulk indexer", "ms", lanes),
        Side("search beside it, one peer and one lane", "ms", one_lane),
    )


def _loads(
    socket: Path, texts: Sequence[str], seconds: float, rounds: int
) -> tuple[Side, Side, Side]:
    few, many, good = [], [], []
    for _ in range(rounds):
        pause()
        rate, tokens = asyncio.run(_closed_loop(socket, texts, 16, seconds))
        few.append(tokens)
        pause()
        _, tokens = asyncio.run(_closed_loop(socket, texts, 64, seconds))
        many.append(tokens)
        pause()
        good.append(asyncio.run(_open_loop(socket, texts, _OVERLOAD * rate, seconds)))
    return (
        Side("16 clients, closed loop", "tokens/s", few),
        Side("64 clients, closed loop", "tokens/s", many),
        Side(f"{_OVERLOAD} x as much asked, answered within 1 s", "tokens/s", good),
    )


def _tables(waits: Sequence[Side], loads: Sequence[Side]) -> tuple[Table, Table]:
    return (
        Table(
            "How long a search takes",
            ("ms", "half take less", "99 % take less"),
            [(each.name, told(each.median), told(_p99(each.values))) for each in waits],
        ),
        Table(
            "What many callers get",
            ("", "median (lowest to highest)", "unit"),
            [(each.name, spread(each), each.unit) for each in loads],
        ),
    )


def _chart_of_waits(waits: Sequence[Side]) -> Chart:
    shares: dict[str, Callable[[Side], float]] = {
        "half take less": lambda side: side.median,
        "99 % take less": lambda side: _p99(side.values),
    }
    return Chart(
        name="search",
        title="A search beside an indexer that keeps the daemon saturated",
        about="Milliseconds that half, and 99 %, of the searches take: with a lane of their own, "
        "and as it would be with one lane and one peer.",
        x="",
        y="ms",
        series={
            name: [Point(each.name, value(each), value(each), value(each)) for each in waits]
            for name, value in shares.items()
        },
        log_y=True,
    )


def _chart_of_loads(loads: Sequence[Side]) -> Chart:
    return Chart(
        name="load",
        title="Many callers on one daemon",
        about="Tokens a second: "
        + ", ".join(f"{each.name} {told(each.median, 3)}" for each in loads),
        x="",
        y="tokens/s",
        series={"tokens/s": [point(each.name, each) for each in loads]},
    )


def _long(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if len(text.split()) >= _LONG_WORDS]


def _one_bulk_batch(socket: Path, texts: Sequence[str]) -> list[float]:
    with Client(socket) as client:
        rows = client.embed(texts[:64], priority="bulk").timings.batch_rows
        return [
            client.embed(texts[start : start + rows], priority="bulk").timings.compute_ms
            for start in range(20)
        ]


async def _searches(
    socket: Path, texts: Sequence[str], indexing: Priority, seconds: float
) -> list[float]:
    """Return how long each search took, in ms, while as much is indexed as a client sends."""
    queries = [" ".join(text.split()[:_QUERY_WORDS]) for text in texts]
    async with AsyncClient(socket, timeout=120) as client, _indexer(socket, texts, indexing):
        searches = [
            asyncio.create_task(_timed(client, query))
            async for query in _arrivals(queries, _SEARCHES_A_SECOND, seconds)
        ]
        return await asyncio.gather(*searches)


@asynccontextmanager
async def _indexer(socket: Path, texts: Sequence[str], priority: Priority) -> AsyncIterator[None]:
    async with AsyncClient(socket, timeout=120) as client:
        corpus = list(itertools.islice(_all_different(_long(texts)), 100_000))
        indexing = asyncio.create_task(client.encode(corpus, priority=priority))
        await asyncio.sleep(1)  # until it has as much waiting as it ever will
        yield
        indexing.cancel()
        with suppress(asyncio.CancelledError):
            await indexing


async def _timed(client: AsyncClient, text: str) -> float:
    started = time.perf_counter()
    await client.embed([text])
    return (time.perf_counter() - started) * 1e3


def _equal_clients(socket: Path, texts: list[str], seconds: float) -> Side:
    start = time.time() + _SPAWNING_SECONDS
    with ProcessPoolExecutor(_EQUAL_CLIENTS, get_context("spawn")) as pool:
        each = [
            pool.submit(_equal_client, socket, texts, start, seconds) for _ in range(_EQUAL_CLIENTS)
        ]
        tokens = [future.result() for future in each]
    return Side(f"tokens of each of {_EQUAL_CLIENTS} equal processes", "tokens", tokens)


def _equal_client(socket: Path, texts: list[str], start: float, seconds: float) -> float:
    tokens = 0
    with Client(socket) as client:
        client.ping()
        time.sleep(max(0.0, start - time.time()))
        for text in _all_different(texts):
            if time.time() >= start + seconds:
                return tokens
            tokens += client.embed([text]).usage.total_tokens
    return tokens


async def _closed_loop(
    socket: Path, texts: Sequence[str], clients: int, seconds: float
) -> tuple[float, float]:
    """Return texts and tokens a second; each client asks when it has its last answer."""
    todo = _all_different(texts)
    until = time.perf_counter() + seconds
    answered = await asyncio.gather(*(_ask_until(socket, todo, until) for _ in range(clients)))
    tokens = [tokens for each in answered for tokens in each]
    return len(tokens) / seconds, sum(tokens) / seconds


async def _ask_until(socket: Path, todo: Iterator[str], until: float) -> list[int]:
    """Return the tokens of each text that was answered in time."""
    answered: list[int] = []
    async with AsyncClient(socket) as client:
        while True:
            reply = await client.embed([next(todo)])
            if time.perf_counter() >= until:
                return answered
            answered.append(reply.usage.total_tokens)


async def _open_loop(socket: Path, texts: Sequence[str], rate: float, seconds: float) -> float:
    """Return the tokens a second that were answered in time, of `rate` texts that were asked."""
    clients = [
        AsyncClient(socket, timeout=_PATIENCE_SECONDS, retries=False) for _ in range(_GENERATORS)
    ]
    await asyncio.gather(*(client.ping() for client in clients))
    turns = itertools.cycle(clients)
    asked = [
        asyncio.create_task(_in_time(next(turns), text))
        async for text in _arrivals(texts, rate, seconds)
    ]
    answered = sum(await asyncio.gather(*asked))
    await asyncio.gather(*(client.close() for client in clients))
    return answered / seconds


async def _in_time(client: AsyncClient, text: str) -> int:
    try:
        return (await client.embed([text])).usage.total_tokens
    except (TimeoutError, Overloaded):  # the client's clock, the daemon's, or a full queue
        return 0


async def _arrivals(texts: Sequence[str], rate: float, seconds: float) -> AsyncIterator[str]:
    """Yield texts as they would come from many people: at random, `rate` a second."""
    chance = random.Random(0)
    started = due = time.perf_counter()
    for text in _all_different(texts):
        due += chance.expovariate(rate)
        if due > started + seconds:
            return
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield text


def _all_different(texts: Iterable[str]) -> Iterator[str]:
    """Yield `texts` over and over, none like another: equal ones are computed once."""
    salt = random.SystemRandom().randrange(10_000)
    for number, text in enumerate(itertools.cycle(texts)):
        yield f"{salt} {number} {text}"


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98]


def _jain(values: Sequence[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
