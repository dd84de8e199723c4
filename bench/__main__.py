"""`python -m bench COMMAND`: print a table, or `--json`; `--plots DIR` draws it as well."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

# Before torch and tokenizers are imported: nothing here asks a hub, and tokenizing is not
# what is measured.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from bench.report import Result, draw, need_plots, show
from sidecar.models.errors import ModelError

_MEASUREMENTS = (
    "serve",
    "encoder",
    "models",
    "scale",
    "cluster",
    "many",
    "overhead",
    "start",
    "fair",
    "faults",
    "fuzz",
    "flat",
    "accuracy",
)
_TOOLS = ("peers", "mpnet", "answers", "refresh")


def main() -> int:
    words = sys.argv[1:]
    arguments = _parser(words).parse_args(words)
    try:
        return arguments.run(arguments)
    except ModelError as error:
        raise SystemExit(str(error)) from None


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return what parses `words`.

    It knows all commands, unless the first word is one: then the others are not imported. Of
    a library that this process has mapped, those whose memory it measures hold only a part.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    names = (*_MEASUREMENTS, *_TOOLS)
    for name in words[:1] if words and words[0] in names else names:
        command = import_module(f"bench.{name}")
        sub = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        command.add_arguments(sub)
        if name in _TOOLS:
            sub.set_defaults(run=command.run)
            continue
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.add_argument("--plots", type=Path, metavar="DIR", help="draw its plots there as well")
        sub.set_defaults(run=partial(_measure, name, command.measure))
    return parser


def _measure(
    name: str, measure: Callable[[argparse.Namespace], Result], arguments: argparse.Namespace
) -> int:
    if arguments.plots:
        need_plots()  # what is missing is told before, not after
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result.as_map(), indent=2))
    else:
        show(result)
    if arguments.plots:
        draw({arguments.plots / f"{name}-{chart.name}": chart for chart in result.charts})
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
