"""`python -m bench COMMAND`: print a table, or `--json`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

# Before torch and tokenizers are imported: nothing here asks a hub, and tokenizing is not
# what is measured.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from bench.report import show

_COMMANDS = (
    "serve",
    "encoder",
    "models",
    "scale",
    "many",
    "overhead",
    "start",
    "fair",
    "faults",
    "flat",
)


def main() -> int:
    words = sys.argv[1:]
    arguments = _parser(words).parse_args(words)
    result = arguments.measure(arguments)
    if arguments.json:
        print(json.dumps(result.as_map(), indent=2))
    else:
        show(result)
    return 1 if result.failed else 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return what parses `words`.

    It knows all commands, unless the first word is one: then the others are not imported. Of
    a library that this process has mapped, those whose memory it measures hold only a part.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in words[:1] if words and words[0] in _COMMANDS else _COMMANDS:
        command = import_module(f"bench.{name}")
        sub = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        sub.add_argument("--json", action="store_true", help="print JSON")
        command.add_arguments(sub)
        sub.set_defaults(measure=command.measure)
    return parser


if __name__ == "__main__":
    sys.exit(main())
