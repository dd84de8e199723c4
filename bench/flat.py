"""The daemon's memory over many requests of random lengths: RSS as it goes, and its slope."""

import argparse
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from bench import memory, subject
from bench.manager import Manager
from bench.report import Chart, Point, Result, Side, Table, told
from client_lib import Client

_MB = 2**20
_STEP = 1_000  # requests from one measurement to the next
_TIMEOUT = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    subject.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> Result:
    chance = random.Random(arguments.seed)
    steps = range(_STEP, arguments.requests + 1, _STEP)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        load = subject.make(arguments, Path(place))
        flags = ("--embedding-model", str(load.artifact), "--device", "cpu")
        with Manager(Path(place), *flags) as manager, Client(manager.socket) as client:
            rss = []
            with ThreadPoolExecutor(arguments.clients) as pool:
                for _ in track(steps, "requests", console=Console(stderr=True), transient=True):
                    texts = chance.choices(load.texts, k=_STEP)
                    list(pool.map(lambda text: client.embed([text], timeout=_TIMEOUT), texts))
                    rss.append(memory.held(manager.pid)["Rss"] / _MB)
    return Result(
        title=f"{load.name}, {arguments.requests} requests of random lengths",
        sides=(
            Side("RSS, first half", "MB", rss[: len(rss) // 2]),
            Side("RSS, second half", "MB", rss[len(rss) // 2 :]),
        ),
        figures={
            "slope, MB in 1,000 requests": _slope(rss),
            "slope of the second half": _slope(rss[len(rss) // 2 :]),
            "seed": arguments.seed,
        },
        tables=(Table("RSS as it goes", ("requests", "MB"), [*map(_row, steps, rss)]),),
        charts=(
            Chart(
                name="rss",
                title=f"{load.name}: a daemon's memory over requests of random lengths",
                about=f"RSS from {told(rss[0])} MB to {told(rss[-1])} MB.",
                x="requests",
                y="RSS, MB",
                series={"RSS": [Point(*at) for at in zip(steps, rss, rss, rss, strict=True)]},
            ),
        ),
    )


def _row(step: int, rss: float) -> tuple[str, str]:
    return told(step), told(rss)


def _slope(values: Sequence[float]) -> float:
    """Return by how much `values` grow from one to the next, by least squares."""
    return float(np.polyfit(range(len(values)), values, 1)[0])
