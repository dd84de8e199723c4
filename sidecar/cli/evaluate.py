"""`sidecar evaluate`: compare the accuracy of each precision with FP32, on judged data."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from client_lib.distribution import DAEMON, install_command
from sidecar import events
from sidecar.cli import pages
from sidecar.cli.bars import bars
from sidecar.cli.console import Console
from sidecar.cli.evaluate_output import show
from sidecar.cli.exits import EX_CONFIG, EX_NOINPUT, EX_OK
from sidecar.cli.planning import FLOORS, host_and_plan, precision
from sidecar.cli.settings import add_flags, settings_of
from sidecar.cli.terminal import complain, say
from sidecar.config import QUANTIZATIONS, Config, to_config
from sidecar.events.writer import Lines
from sidecar.models import library, manifest
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.folder.describe import task_of
from sidecar.models.library import Wanted
from sidecar.models.model import Model
from sidecar.models.source import locate
from sidecar.models.torch_model import TorchModel
from sidecar.operate.evaluate.data import Data, DataError, check_task
from sidecar.operate.evaluate.evaluation import REFERENCE, Evaluation, Judged, Served
from sidecar.operate.evaluate.folder import read

_STDERR = 2
_RUN, _PAGE = "sidecar.operate.evaluate.run", "sidecar.operate.evaluate.page"


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of each precision on judged data",
        description="Evaluate a model on judged data in FP32 and in each plan, and report which "
        "differences are statistically significant. A data folder is in BEIR format "
        "(corpus.jsonl, queries.jsonl, qrels.tsv), or holds candidates to rerank (rerank.jsonl) "
        "or scored pairs of sentences (test.tsv or dev.tsv).",
    )
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="DIR", help="data folders"
    )
    parser.add_argument(
        "--plans", type=_plans, default=_plans("int8"), metavar="LIST",
        help="plans to compare with FP32, which is always included (default: none,int8)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=_whole, metavar="N", help="use only N queries per set, for a quick look"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with plots")
    add_flags(parser, "device", "threads", "prompts", "cache_dir", *FLOORS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the model; return 66 for data that cannot be read, 78 without the extras."""
    config = to_config(settings_of(arguments))
    events.configure(Lines(_STDERR), events.Selection("error"))
    if missing := _missing(arguments):
        complain(missing)
        return EX_CONFIG
    if arguments.html:
        pages.check_writable(arguments.html)
    try:
        evaluation = _evaluate(arguments, config)
    except DataError as error:
        complain(error)
        return EX_NOINPUT
    if arguments.json:
        say(json.dumps(evaluation.as_map(), indent=2))
    else:
        show(evaluation)
    if arguments.html:
        render = import_module(_PAGE).render
        pages.write(arguments.html, render(evaluation, datetime.now(UTC)))
    return EX_OK


def _missing(arguments: argparse.Namespace) -> str | None:
    """Return which extra has to be installed, if any: evaluating and plotting are optional."""
    needed: list[tuple[str, str, tuple[str, ...]]] = [("evaluating", _RUN, ("edge", "evaluate"))]
    if arguments.html:
        needed.append(("--html", _PAGE, ("plots",)))
    for what, module, extras in needed:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            return f"{what} needs {error.name}: {install_command(DAEMON, *extras)}"
    return None


def _evaluate(arguments: argparse.Namespace, config: Config) -> Evaluation:
    sets = [read(folder, arguments.limit) for folder in arguments.data]
    folder = _source(arguments.model)
    for data in sets:
        check_task(data, task_of(folder), arguments.model)
    models = _open(arguments.model, task_of(folder), arguments.plans, config)
    host, plan = host_and_plan(replace(config, quantization=REFERENCE))
    return Evaluation(
        model=models[REFERENCE].name,
        source=folder,
        processor=(host.cuda if plan.device == "cuda" else None) or host.cpu_model,
        plans={name: Served.of(model.describe()) for name, model in models.items()},
        judged=_judge(sets, models, plan.threads),
    )


def _plans(text: str) -> tuple[str, ...]:
    """Parse a list of plans; FP32 comes first."""
    known = [name for name in QUANTIZATIONS if name != "auto"]
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys((REFERENCE, *names)))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:  # noqa: PLR2004 - an interval needs two queries
        raise argparse.ArgumentTypeError("must be a whole number of at least 2")
    return int(text)


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
    """Return the model in each of `plans`, preparing it if necessary."""
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
            max_tokens=config.max_tokens,
            prompts=config.prompts,
        )
        with Console(stderr=True).status(f"opening {name} in {plan}"):
            models[plan] = library.open_model(wanted, config.cache_dir)
    return models


def _judge(
    sets: list[Data], models: Mapping[str, Model | TorchModel], threads: int
) -> list[Judged]:
    evaluate = import_module(_RUN).evaluate
    with bars() as bar:

        def judged(data: Data) -> Judged:
            def progress(plan: str, done: int, total: int) -> None:
                bar(f"{data.name}, {plan}", done, total)

            outcomes = evaluate(data, models, threads, progress)
            return Judged(data.name, data.about, data.task, tuple(outcomes))

        return [judged(data) for data in sets]
