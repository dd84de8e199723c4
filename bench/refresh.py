"""Measure what the documentation tells, and write its tables and plots.

Each measurement runs in a process of its own, one after another. Its result is kept as JSON; the
plots, and the tables and figures in the documentation, are made from these files.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import comparison, pages
from bench.report import Chart, draw, need_plots

RESULTS = Path("docs/measured")
# The pages that show results, and the path from each to the plots.
PAGES = {
    Path("README.md"): PurePath("docs/measured"),
    Path("docs/accuracy.md"): PurePath("measured"),
    Path("docs/benchmarks.md"): PurePath("measured"),
    Path("docs/integrations/ray.md"): PurePath("../measured"),
}
_TRIAL = Path("build/measured")
_MPNET = "build/all-mpnet-base-v2"  # from `python -m bench mpnet`
_RERANKER = "../shared/models/reranker-minilm-l6"
_DATA = "../shared/data"
_SMALL = ("cranfield", "xquad-en", "stsb")
_PEERS = "build/peers"  # from `python -m bench peers install --into`
_KEPT = ("--artifacts", "build/artifacts")  # int8 and int4 are minutes of preparing
_FEWER = ("--texts", "32", "--rounds", "2")  # a base-size model takes its time
_IN_PROCESS = ("Sidecar", "sentence-transformers", "PyTorch", "onnxruntime", "infinity")
_DIGITS = 5  # that are kept of a value
_LAST_LINES = 12  # that are shown of what a failed command said


@dataclass(frozen=True, slots=True)
class Measurement:
    """A command line after `python -m bench`, and what makes it a short one."""

    name: str
    arguments: Sequence[str]
    fast: Sequence[str] = ()

    def command(self, *, fast: bool) -> list[str]:
        return [*self.arguments, *(self.fast if fast else ())]


_SHORT_LOAD = ("--texts", "48", "--rounds", "2")
MEASUREMENTS = (
    Measurement(
        "serve", ("serve", "--peers", _PEERS, "--texts", "96", "--rounds", "2"), _SHORT_LOAD
    ),
    Measurement(
        "serve-mpnet",
        ("serve", "--model", _MPNET, "--peers", _PEERS, *_FEWER, "--sides", *_IN_PROCESS),
        ("--texts", "16", "--rounds", "1"),
    ),
    Measurement(
        "models",
        ("models", "--models", "all-MiniLM-L6-v2", "reranker-minilm-l6", *_KEPT),
        ("--lengths", "16", "--rounds", "1"),
    ),
    Measurement(
        "models-base",
        (
            *("models", "--models", "all-mpnet-base-v2", "e5-base-v2", "bge-reranker-base"),
            *("--mpnet", _MPNET, "--plans", "none,int8", "--rounds", "2", *_KEPT),
        ),
        ("--lengths", "16", "--rounds", "1"),
    ),
    Measurement("scale", ("scale",), ("--seconds", "0.5", "--rounds", "1")),
    Measurement("many", ("many",), ("--processes", "1", "2", "--rounds", "1")),
    Measurement("encoder", ("encoder",), _SHORT_LOAD),
    Measurement("encoder-int4", ("encoder", "--quantization", "int4"), _SHORT_LOAD),
    Measurement("encoder-mpnet", ("encoder", "--model", _MPNET), _SHORT_LOAD),
    Measurement("overhead", ("overhead",), ("--requests", "100")),
    Measurement("overhead-tiny", ("overhead", "--tiny"), ("--requests", "100")),
    Measurement("start", ("start",), (*_SHORT_LOAD, "--idle-seconds", "1")),
    Measurement("start-bert-base", ("start", "--shape", "bert-base"), ("--rounds", "1")),
    Measurement("start-xlmr-base", ("start", "--shape", "xlm-roberta-base"), ("--rounds", "1")),
    Measurement(
        "fair", ("fair", "--rounds", "5", "--seconds", "12"), ("--rounds", "1", "--seconds", "3")
    ),
    Measurement(
        "faults", ("faults", "--seconds", "300", "--kill-seconds", "3.2"), ("--seconds", "15")
    ),
    Measurement("flat", ("flat",), ("--requests", "4000", "--tiny")),
    Measurement("cluster", ("cluster", "--rounds", "3"), ("--texts", "64", "--rounds", "1")),
    Measurement("accuracy", ("accuracy",), ("--limit", "20")),
    Measurement(
        "accuracy-mpnet",
        ("accuracy", "--model", _MPNET, "--data", *(f"{_DATA}/{each}" for each in _SMALL)),
        ("--limit", "5"),
    ),
    Measurement(
        "accuracy-reranker",
        ("accuracy", "--model", _RERANKER, "--data", f"{_DATA}/selqa"),
        ("--limit", "20"),
    ),
)


class Failed(Exception):
    """A measurement came to no result, or to one that must not be; the message says what."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [each.name for each in MEASUREMENTS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME",
        help=f"measure these: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, metavar="DIR",
        help=f"where they are kept (default: {RESULTS}; with --fast {_TRIAL}); "
        "the documentation shows those in the default folder only, others get a page of their own",
    )  # fmt: skip
    parser.add_argument("--fast", action="store_true", help="short runs: a trial of it all")
    parser.add_argument("--render", action="store_true", help="measure nothing")


def run(arguments: argparse.Namespace) -> int:
    folder = arguments.results or (_TRIAL if arguments.fast else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    need_plots()  # what is missing is told before, not after
    wanted = [each for each in MEASUREMENTS if each.name in arguments.only]
    failures = 0 if arguments.render else measure(wanted, folder, fast=arguments.fast)
    try:
        render(folder)
    except pages.MarkerError as error:
        raise SystemExit(str(error)) from None
    return 1 if failures else 0


def read(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the results in `folder` by name, in the order in which they are measured."""
    names = [each.name for each in MEASUREMENTS]
    names += sorted({path.stem for path in folder.glob("*.json")} - set(names))
    files = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def render(folder: Path) -> None:
    """Draw the plots of the results in `folder`, and show the results.

    Those in `RESULTS` fill the places of the documentation; others get a page of their own.
    """
    results = read(folder)
    draw(
        {
            folder / pages.plot_name(name, chart): Chart.from_map(chart)
            for name, result in results.items()
            for chart in result["charts"]
        }
    )
    if folder != RESULTS:
        page = folder.with_name(f"{folder.name}.md")
        page.write_text(pages.page(results, PurePath(folder.name)))
        return
    for page, plots in PAGES.items():
        page.write_text(pages.fill(page.read_text(), shown(results), plots))


def shown(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what a place may show: each result, and the comparison made from several."""
    return {**results, "comparison": comparison.of(results)}


def measure(wanted: Sequence[Measurement], folder: Path, *, fast: bool) -> int:
    """Return how many measurements failed."""
    failures = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(wanted))
        for each in wanted:
            progress.update(task, description=each.name)
            started = perf_counter()
            try:
                _keep(each, folder, fast=fast)
                console.print(f"{each.name}: {perf_counter() - started:.0f} s", highlight=False)
            except Failed as failure:
                failures += 1
                console.print(f"{each.name}: {failure}", style="red", markup=False)
            progress.advance(task)
    return failures


def _keep(measurement: Measurement, folder: Path, *, fast: bool) -> None:
    """Run a measurement and keep its result, also of one that must not be."""
    command = ["-m", "bench", *measurement.command(fast=fast)]
    done = subprocess.run(
        [sys.executable, *command, "--json"], capture_output=True, text=True, check=False
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        last = "\n".join(done.stderr.splitlines()[-_LAST_LINES:])
        raise Failed(f"exit code {done.returncode}\n{last}") from None
    told = {
        "command": f"python {shlex.join(command)}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    (folder / f"{measurement.name}.json").write_text(_written({**told, **result}))
    if result["failed"]:
        raise Failed(", ".join(result["failed"]))


def _written(result: Mapping[str, Any]) -> str:
    """Return the result as JSON, each list of numbers on a line."""
    text = json.dumps(_rounded(result), indent=1, ensure_ascii=False)
    numbers = re.compile(r"\[\n([-+\d.eE,\s]+)\]")
    return numbers.sub(lambda each: f"[{' '.join(each[1].split())}]", text) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
