"""What a request costs: by its texts, their length, the clients beside it, and the threads.

One thing changes at a time. The rest stays as it is: one client, one text a request, 64 tokens
a text, a thread a core. The clients run on the same cores as the daemon.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import closed_loop, texts
from bench.closed_loop import Load
from bench.daemon import pause, running
from bench.lengths import Exactly
from bench.report import Chart, Result, Side, Table, point, spread
from sidecar.host import read_host
from sidecar.models.folder.describe import describe
from sidecar.models.manifest import TOKENIZER
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name, locate

_TOKENS = 64
_DOUBLING = (1, 2, 4, 8, 16, 32, 64)
_LENGTHS = (8, 16, 32, 64, 128, 256, 512)
_BATCH = 16  # texts of a request, by length
_CLIENTS = 16  # by threads
_SOURCES = 400  # texts to take words from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)


def measure(arguments: argparse.Namespace) -> Result:
    folder, cores = locate(arguments.model), read_host().cores
    make = Exactly(folder / TOKENIZER, texts.read(arguments.data, _SOURCES))
    lengths = [tokens for tokens in _LENGTHS if tokens <= describe(folder).max_tokens]
    with ExitStack() as stack:
        sockets = {
            threads: stack.enter_context(
                running("--embedding-model", arguments.model, "--threads", str(threads))
            )
            for threads in (*(n for n in _DOUBLING if n < cores), cores)
        }
        daemons = _Daemons(sockets, make, arguments.seconds)
        daemons.warm_up()
        sweeps = list(_sweeps(daemons, lengths))
        for _ in range(arguments.rounds):
            for sweep in sweeps:
                sweep.measure()
    return Result(
        title=f"{display_name(arguments.model)} in int8, by what is asked of it",
        sides=[side for sweep in sweeps for place in sweep.places for side in sweep.sides(place)],
        figures=dict(sweep.figure() for sweep in sweeps),
        tables=[sweep.table() for sweep in sweeps],
        charts=[chart for sweep in sweeps for chart in sweep.charts()],
    )


@dataclass(frozen=True, slots=True)
class _Daemons:
    """A daemon for each number of threads, and the texts for them."""

    sockets: Mapping[int, Path]
    make: Exactly
    seconds: float

    def ask(
        self, *, size: int = 1, tokens: int = _TOKENS, clients: int = 1, threads: int = 0
    ) -> Load:
        """Measure requests of `size` texts each; `threads` 0 is a thread a core."""
        requests = ([self.make.text(tokens) for _ in range(size)] for _ in itertools.count())
        socket = self.sockets[threads or max(self.sockets)]
        return closed_loop.run(socket, requests, clients, self.seconds)

    def warm_up(self) -> None:
        for threads in self.sockets:
            self.ask(clients=_CLIENTS, threads=threads)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One thing that changes, `x`, and what was measured at its values, `places`.

    `counted` is the field of a `Load` that is told: "texts" or "tokens", by the second.
    """

    name: str
    title: str
    x: str
    counted: str
    places: Sequence[int]
    ask: Callable[[int], Load]
    loads: dict[int, list[Load]] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure once at each place."""
        for place in self.places:
            pause()
            self.loads.setdefault(place, []).append(self.ask(place))

    def sides(self, place: int) -> tuple[Side, Side]:
        """Return the rate at a place, and the time of a request."""
        loads, name = self.loads[place], f"{self.x}: {place}"
        return (
            Side(name, f"{self.counted}/s", [getattr(load, self.counted) for load in loads]),
            Side(f"{name}, p50", "ms", [load.p50_ms for load in loads]),
        )

    def figure(self) -> tuple[str, float]:
        """Return how many times the rate of its first place the sweep comes to."""
        rates = {place: self.sides(place)[0].median for place in self.places}
        best = max(rates, key=lambda place: rates[place])
        times = rates[best] / rates[self.places[0]]
        return f"{self.x}: {self.counted}/s at {best}, to those at {self.places[0]}", times

    def table(self) -> Table:
        rows = [(str(place), *map(spread, self.sides(place))) for place in self.places]
        return Table(self.title, (self.x, f"{self.counted}/s", "p50 of a request, ms"), rows)

    def charts(self) -> Iterator[Chart]:
        """Yield the rate by place, and the time of a request by place."""
        kinds = (("rate", f"{self.counted}/s"), ("p50", "p50 of a request, ms"))
        for index, (kind, y) in enumerate(kinds):
            points = [point(place, self.sides(place)[index]) for place in self.places]
            yield Chart(
                name=f"{self.name}-{kind}",
                title=self.title,
                about=f"{self.title}: {y} by {self.x}.",
                x=self.x,
                y=y,
                series={"Sidecar INT8": points},
                log_x=True,
                log_y=kind == "p50",
            )


def _sweeps(daemons: _Daemons, lengths: Sequence[int]) -> Iterator[_Sweep]:
    yield _Sweep(
        "size",
        f"Requests of many texts: one client, {_TOKENS} tokens a text",
        "texts in a request",
        "texts",
        _DOUBLING,
        lambda size: daemons.ask(size=size),
    )
    yield _Sweep(
        "length",
        f"Long texts: one client, {_BATCH} texts in a request",
        "tokens a text",
        "tokens",
        lengths,
        lambda tokens: daemons.ask(size=_BATCH, tokens=tokens),
    )
    yield _Sweep(
        "clients",
        f"Many clients: one text in a request, {_TOKENS} tokens a text",
        "clients",
        "texts",
        _DOUBLING,
        lambda clients: daemons.ask(clients=clients),
    )
    yield _Sweep(
        "threads",
        f"Inference threads: {_CLIENTS} clients, one text in a request, {_TOKENS} tokens a text",
        "threads",
        "texts",
        list(daemons.sockets),
        lambda threads: daemons.ask(clients=_CLIENTS, threads=threads),
    )
