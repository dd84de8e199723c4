"""Load, and all that can go wrong with it: kills, garbage, peers that hang up or never read.

The daemons follow one another on a listening socket that outlives them. Well-behaved clients
keep asking through all of it, and every vector that they get is compared, byte by byte, with
what its text has alone. Exits with 1 if a request is lost, is answered twice or wrongly, or meets
an error, or if a daemon ends that nobody killed.

With `--attack` other users attack instead, one way after the other: see `bench.attack`.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import memory, subject
from bench.attack import measure as attack
from bench.crowd import Book, Crowd
from bench.manager import Manager
from bench.report import Chart, Point, Result, Side
from bench.vandals import Vandals

_WINDOWS = 30  # in `--seconds`; a rate is told of each
_LOOK_SECONDS = 0.1
_WARM = 0.25  # of the last daemon's life


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=float,
        help="with faults (60), a third more alone; of attacks in all (300)",
    )
    parser.add_argument(
        "--kill-seconds", type=float, default=4, help="from kill to kill, on average"
    )
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument(
        "--attack",
        action="store_true",
        help="other users' attacks instead, on the tiny model; as root",
    )
    parser.add_argument(
        "--only", nargs="+", choices=attack.NAMES, metavar="ATTACK", help="; ".join(attack.NAMES)
    )
    subject.add_arguments(parser)


def measure(arguments: argparse.Namespace) -> Result:
    if arguments.attack:
        names = arguments.only or attack.NAMES
        return attack.measure(names, seconds=arguments.seconds or 300, seed=arguments.seed)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place:
        load = subject.make(arguments, Path(place))
        flags = ("--embedding-model", str(load.artifact), "--device", "cpu")
        with Manager(Path(place), *flags) as manager:
            run = _Run(arguments, manager, Book(load))
            run.through()
            return run.result(load.name)


class _Run:
    """Quiet for a third of `--seconds`; then faults, with kills in the first two thirds of them."""

    def __init__(self, arguments: argparse.Namespace, manager: Manager, book: Book) -> None:
        self._seconds = arguments.seconds or 60
        self._kill_seconds = arguments.kill_seconds
        self._clients = arguments.clients
        self._seed = arguments.seed
        self._chance = random.Random(arguments.seed)
        self._manager = manager
        self._book = book
        self._vandals = Vandals(manager.socket, arguments.seed)
        self._crowd = Crowd(manager.socket, book, clients=arguments.clients, seed=arguments.seed)
        self._kills: list[float] = []
        self._ends: list[int] = []
        self._phases: list[tuple[float, float]] = []
        self._rss: list[int] = []

    def through(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._progress:
            self._task = self._progress.add_task("", total=self._seconds * 4 / 3)
            with self._crowd:
                self._phase(self._seconds / 3)
                with self._vandals:
                    self._phase(self._seconds, kills_until=self._seconds * 2 / 3)
        self._ends.append(self._manager.stop())

    def _phase(self, seconds: float, kills_until: float = 0) -> None:
        begun = time.monotonic()
        kill_at = self._next_kill(begun)
        warm_at = begun + kills_until + _WARM * (seconds - kills_until)
        self._rss = []
        while (now := time.monotonic()) < begun + seconds:
            if self._manager.ended is not None:
                self._ends.append(self._manager.ended)
                self._manager.start()
            elif kill_at <= now < begun + kills_until:
                self._kill()
                kill_at = self._next_kill(now)
            if now >= warm_at and not self._rss:
                self._rss.append(self._held())
            self._progress.update(self._task, advance=_LOOK_SECONDS, description=self._told())
            time.sleep(_LOOK_SECONDS)
        self._rss.append(self._held())
        self._phases.append((begun, time.monotonic()))

    def _next_kill(self, now: float) -> float:
        # Also of a daemon that has not begun to serve, now and then.
        return now + self._chance.uniform(0.1, 1.9) * self._kill_seconds

    def _kill(self) -> None:
        if self._book.waiting:
            self._kills.append(time.monotonic())
        self._manager.kill()
        self._manager.start()

    def _held(self) -> int:
        return memory.held(self._manager.pid)["Rss"]

    def _told(self) -> str:
        book = self._book
        return f"{book.answered} answered, {len(self._kills)} kills, {book.errors.total()} errors"

    def result(self, name: str) -> Result:
        book = self._book
        alone, faulty = (self._rates(*phase) for phase in self._phases)
        lasted = [at for at in self._kills if book.times and book.times[-1] > at]
        warm, end = self._rss
        must_be_0 = {
            "requests lost": book.waiting,
            "errors that well-behaved clients saw": book.errors.total(),
            "requests answered twice": book.doubled,
            "vectors of another text": book.other_answers,
            "vectors that differ from the reference": book.wrong,
            "kills not survived": len(self._kills) - len(lasted),
            "daemons that ended unasked, or not with 0": sum(code != 0 for code in self._ends),
            "faults that the daemons told of": self._manager.faults().total(),
        }
        return Result(
            title=f"{name}, {self._clients} clients, {self._seconds:g} s of faults",
            sides=[
                Side("without faults", "requests/s", alone),
                Side("with faults", "requests/s", faulty),
            ],
            figures={
                "load held": (sum(faulty) / len(faulty)) / (sum(alone) / len(alone)),
                "requests answered": book.answered,
                "vectors compared": book.compared,
                "kills survived, with requests in flight": len(lasted),
                **dict(sorted(self._vandals.done.items())),
                **must_be_0,
                "what went wrong": dict(book.errors + self._manager.faults()) or "nothing",
                "RSS drift of the last daemon, %": 100 * (end - warm) / warm,
                "seed": self._seed,
            },
            failed=[name for name, count in must_be_0.items() if count],
            charts=[self._chart(name, alone, faulty)],
        )

    def _chart(self, name: str, alone: Sequence[float], faulty: Sequence[float]) -> Chart:
        window = self._seconds / _WINDOWS

        def points(rates: Sequence[float], begun: float) -> list[Point]:
            return [
                Point(begun + window * (i + 0.5), rate, rate, rate) for i, rate in enumerate(rates)
            ]

        return Chart(
            name="load",
            title=f"{name}: what {self._clients} clients get, without faults and with them",
            about="Requests answered a second, over the seconds of the run: first without "
            "faults, then with them; daemons are killed in the first two thirds of these.",
            x="s",
            y="requests/s",
            series={
                "without faults": points(alone, 0),
                "with faults": points(faulty, self._seconds / 3),
            },
        )

    def _rates(self, begun: float, ended: float) -> Sequence[float]:
        window = self._seconds / _WINDOWS
        counts = [0] * round((ended - begun) / window)
        for at in self._book.times:
            if begun <= at and (index := int((at - begun) / window)) < len(counts):
                counts[index] += 1
        return [count / window for count in counts]
