"""`sidecar evaluate`: how accurate each precision of a model is on judged data, against FP32."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar import events
from sidecar.cli.bars import bars
from sidecar.cli.exits import EX_CONFIG, EX_NOINPUT, EX_OK
from sidecar.cli.planning import FLOORS, host_and_plan, precision
from sidecar.cli.settings import add_flags, settings_of
from sidecar.config import QUANTIZATIONS, Config, to_config
from sidecar.events.writer import Lines
from sidecar.models import library, manifest
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder import task_of
from sidecar.models.library import Wanted
from sidecar.models.model import Model
from sidecar.models.source import locate
from sidecar.models.torch_model import TorchModel
from sidecar.operate.evaluate.data import Data, DataError, check_task
from sidecar.operate.evaluate.folder import read

if TYPE_CHECKING:
    from sidecar.operate.evaluate.run import Figure, Outcome

_STDERR = 2
_FP32 = "none"


@dataclass(frozen=True, slots=True)
class Judged:
    """One set of data, and what each plan came to on it."""

    data: Data
    outcomes: "tuple[Outcome, ...]"


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of each precision on judged data",
        description="Compute judged data with a model in FP32 and in each plan, and say which "
        "differences are more than chance. A folder holds what BEIR's do (corpus.jsonl, "
        "queries.jsonl, qrels.tsv), candidates to rerank (rerank.jsonl), or pairs of sentences "
        "with a score (test.tsv or dev.tsv).",
    )
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders of data"
    )
    parser.add_argument(
        "--plans", type=_plans, default=_plans("int8"), metavar="LIST",
        help="what is compared with FP32, which is always among them (default: none,int8)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=_whole, metavar="N", help="take N queries of each set: a quick look"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(parser, "device", "threads", "cache_dir", *FLOORS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge the model and print it; 66 for data that cannot be read, 78 without the extra."""
    config = to_config(settings_of(arguments))
    events.configure(Lines(_STDERR), events.Selection("error"))
    try:
        # Only who judges needs what does.
        import_module("sidecar.operate.evaluate.run")
        sets = [read(folder, arguments.limit) for folder in arguments.data]
        folder = _source(arguments.model)
        for data in sets:
            check_task(data, task_of(folder), arguments.model)
        models = _open(arguments.model, task_of(folder), arguments.plans, config)
        judged = _judge(sets, models, _threads(config))
    except ModuleNotFoundError as error:
        what = f"sidecar: evaluating needs {error.name}: pip install 'sidecar[edge,evaluate]'"
        print(what, file=sys.stderr)
        return EX_CONFIG
    except DataError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return EX_NOINPUT
    if arguments.json:
        print(json.dumps(_as_map(models, judged), indent=2))
    else:
        _show(models, judged)
    return EX_OK


def _plans(text: str) -> tuple[str, ...]:
    """Return the plans named in `text`, FP32 first."""
    known = [name for name in QUANTIZATIONS if name != "auto"]
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys((_FP32, *names)))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:  # noqa: PLR2004 - chance needs two
        raise argparse.ArgumentTypeError("must be a whole number of at least 2")
    return int(text)


def _threads(config: Config) -> int:
    return host_and_plan(replace(config, quantization=_FP32))[1].threads


def _source(name: str) -> Path:
    folder = locate(name)
    if manifest.is_artifact(folder):
        raise ModelError(
            f"{name} is an artifact, which has one precision: name the model that it was "
            "prepared from"
        )
    return folder


def _open(
    name: str, task: Task, plans: tuple[str, ...], config: Config
) -> dict[str, Model | TorchModel]:
    """Return the model in each of `plans`, prepared where it is not yet."""
    models = {}
    for plan in plans:
        own = replace(config, use_quantization=True, quantization=plan)
        _, planned = host_and_plan(own)
        wanted = Wanted(
            name=name,
            task=task,
            precision=precision(own, planned),
            reason=planned.reason,
            device=planned.device,
        )
        with Console(stderr=True).status(f"opening {name} in {plan}"):
            models[plan] = library.open_model(wanted, config.cache_dir)
    return models


def _judge(
    sets: list[Data], models: Mapping[str, Model | TorchModel], threads: int
) -> list[Judged]:
    evaluate = import_module("sidecar.operate.evaluate.run").evaluate
    with bars() as show:
        return [
            Judged(
                data,
                tuple(
                    evaluate(
                        data,
                        models,
                        threads,
                        lambda plan, *done, name=data.name: show(f"{name}, {plan}", *done),
                    )
                ),
            )
            for data in sets
        ]


def _as_map(models: Mapping[str, Model | TorchModel], judged: list[Judged]) -> dict[str, Any]:
    return {
        "model": models[_FP32].name,
        "plans": {plan: _served(model) for plan, model in models.items()},
        "data": [
            {
                "name": each.data.name,
                "about": each.data.about,
                "plans": {outcome.plan: _outcome(outcome) for outcome in each.outcomes},
            }
            for each in judged
        ],
    }


def _served(model: Model | TorchModel) -> dict[str, Any]:
    """Return what the plan came out in, which may be FP32 in part or in whole."""
    known = model.describe()
    return {
        "quantization": known["quantization"],
        "bytes_weights": known["bytes_weights"],
        "kept_in_fp32": list(known.get("kept", ())),
    }


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "closeness": asdict(outcome.closeness) if outcome.closeness else None,
        "metrics": {figure.metric: _figure(figure) for figure in outcome.figures},
    }


def _figure(figure: "Figure") -> dict[str, Any]:
    found = figure.difference
    if found is None:
        return {"value": figure.value}
    told = {**asdict(found), "within_noise": found.within_noise}
    return {"value": figure.value, "difference": told}


def _show(models: Mapping[str, Model | TorchModel], judged: list[Judged]) -> None:
    console = Console()
    for each in judged:
        table = Table(
            "", "plan", "value", "against FP32", "95 % interval", "",
            box=None, title=Text(f"{each.data.name}: {each.data.about}"), title_justify="left",
        )  # fmt: skip
        for row in _rows(each):
            table.add_row(*map(Text, row))
        console.print(table)
        console.print()
    for plan, model in models.items():
        console.print(Text(f"{plan}: {_remark(_served(model))}"), style="dim")


def _rows(judged: Judged) -> Iterator[tuple[str, ...]]:
    for number, figure in enumerate(judged.outcomes[0].figures):
        for outcome in judged.outcomes:
            name = figure.metric if outcome.plan == _FP32 else ""
            yield name, outcome.plan, *_cells(outcome.figures[number])
    closeness = {"embed": "cosine to FP32", "rerank": "1 - distance to FP32's score"}
    for outcome in judged.outcomes:
        if found := outcome.closeness:
            name, spread = (
                closeness[judged.data.task],
                (f"p1 {found.p1:.4f}", f"min {found.min:.4f}"),
            )
            yield name, outcome.plan, f"{found.mean:.4f}", *spread, ""


def _cells(figure: "Figure") -> tuple[str, ...]:
    found = figure.difference
    if found is None:
        return f"{figure.value:.4f}", "", "", ""
    interval = f"{found.low:+.4f} to {found.high:+.4f}"
    return f"{figure.value:.4f}", f"{found.value:+.4f}", interval, found.verdict


def _remark(served: Mapping[str, Any]) -> str:
    kept = served["kept_in_fp32"]
    layers = f"; {len(kept)} layers stayed in FP32" if kept else ""
    quantization = served["quantization"]
    precision = "FP32" if quantization == _FP32 else quantization
    return f"served in {precision}, {served['bytes_weights'] / 1e6:.1f} MB{layers}"
