"""Texts a second and their times through the daemon, against what else there is.

One text a request, by 1, 16 and 64 clients in a closed loop, on mixed lengths and on one. The
others compute the same texts with as many threads: encoders in this process, as applications
have them today, and the servers that `python -m bench peers install` installs (`--peers`).
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import loads
from bench.callers import Encode, Visit
from bench.contenders import Contender, Lineup, gathered, say
from bench.daemon import pause
from bench.loads import LOADS, Lengths, Load
from bench.peers.table import SERVICES
from bench.report import Result
from bench.scores import Scores, score
from bench.standings import charts, figures, tables
from sidecar.host import read_host
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, display_name

_WARM_UP = 48  # texts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--texts", type=int, default=96, help="in each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=DEFAULT_EMBEDDING_MODEL)
    parser.add_argument("--quantization", choices=["int8", "int4", "none"], default="int8")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where they are installed")
    parser.add_argument(
        "--sides", nargs="+", default=(), metavar="WORD", help="only those with it in their name"
    )


def measure(arguments: argparse.Namespace) -> Result:
    # Servers are processes of their own: whoever ends this one ends them, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    texts = loads.read(arguments.data, arguments.texts)
    with (
        tempfile.TemporaryDirectory(prefix="sidecar-bench-") as place,
        gathered(arguments, Path(place)) as lineup,
    ):
        scores = _Contest(lineup, texts).run(arguments.rounds)
    title = f"{display_name(arguments.model)}, Sidecar in {arguments.quantization}"
    return Result(
        title=f"{title}, {len(texts['mixed'])} texts a measurement",
        sides=list(scores.sides()),
        figures=figures(scores),
        skipped=lineup.missing,
        tables=tables(scores),
        charts=charts(scores, title),
    )


class _Contest:
    """Lets contenders take turns, each with all of a load's texts."""

    def __init__(self, lineup: Lineup, texts: Mapping[Lengths, Sequence[str]]) -> None:
        self._lineup = lineup
        self._texts = texts
        self._cores = read_host().cores
        self._exact = {lengths: _exact(lineup.reference, each) for lengths, each in texts.items()}
        self._scores = Scores(each.name for each in lineup.contenders)

    def run(self, rounds: int) -> Scores:
        say("warming up")
        for contender in tuple(self._lineup.contenders):
            self._visit(contender, contender.clients[-1], self._texts["mixed"][:_WARM_UP])
        for number in range(1, rounds + 1):
            for load in LOADS:
                say(f"round {number} of {rounds}: {load}")
                self._let_all_compute(load)
        return self._scores

    def _let_all_compute(self, load: Load) -> None:
        texts, exact = self._texts[load.lengths], self._exact[load.lengths]
        for contender in tuple(self._lineup.contenders):
            if load.clients not in contender.clients:
                continue
            pause()
            if visit := self._visit(contender, load.clients, texts):
                self._scores.add(contender.name, load, score(visit, exact, self._cores))

    def _visit(self, contender: Contender, clients: int, texts: Sequence[str]) -> Visit | None:
        """Return what came of it, or None where a server of others failed: it leaves."""
        try:
            return contender.visit(texts, clients)
        except (HTTPException, OSError, RuntimeError) as error:
            if contender.name not in SERVICES:
                raise
            self._leave_out(contender, f"with {clients} clients: {error!r}")
            return None

    def _leave_out(self, contender: Contender, why: str) -> None:
        self._lineup.contenders.remove(contender)
        self._lineup.missing[contender.name] = why
        self._scores.drop(contender.name)


def _exact(encode: Encode, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors in FP32, each text by itself."""
    return np.concatenate([encode([text]) for text in texts])
