"""`python -m bench COMMAND`: print a table, or `--json`; `--plots DIR` draws it as well."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Before torch and tokenizers are imported: nothing here asks a hub, and tokenizing is not
# what is measured.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from bench import encoder, fair, faults, flat, mpnet, overhead, refresh, serve, start
from bench.report import Result, plotter, show
from sidecar.models.errors import ModelError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, encoder, overhead, start, fair, faults, flat):
        name = command.__name__.rpartition(".")[2]
        sub = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument("--plots", type=Path, metavar="DIR", help="draw plots in that folder")
        command.add_arguments(sub)
        sub.set_defaults(run=partial(_measure, name, command.measure))
    for tool in (mpnet, refresh):
        name = tool.__name__.rpartition(".")[2]
        sub = commands.add_parser(name, help=(tool.__doc__ or "").splitlines()[0])
        tool.add_arguments(sub)
        sub.set_defaults(run=tool.run)
    arguments = parser.parse_args()
    try:
        return arguments.run(arguments)
    except ModelError as error:
        raise SystemExit(str(error)) from None


def _measure(
    name: str, measure: Callable[[argparse.Namespace], Result], arguments: argparse.Namespace
) -> int:
    plot = plotter() if arguments.plots else None  # what is missing is told before, not after
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result.as_map(), indent=2))
    else:
        show(result)
    if plot:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        for chart in result.charts:
            plot(chart, arguments.plots / f"{name}-{chart.name}")
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
