"""`python -m bench COMMAND`: print a table, or `--json`."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial

# Before torch and tokenizers are imported: nothing here asks a hub, and tokenizing is not
# what is measured.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from bench import encoder, fair, faults, flat, overhead, peers, serve, start
from bench.report import Result, show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, encoder, overhead, start, fair, faults, flat):
        name = command.__name__.rpartition(".")[2]
        sub = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        sub.add_argument("--json", action="store_true", help="print JSON")
        command.add_arguments(sub)
        sub.set_defaults(run=partial(_measure, command.measure))
    sub = commands.add_parser("peers", help=peers.__doc__)
    peers.add_arguments(sub)
    sub.set_defaults(run=peers.run)
    arguments = parser.parse_args()
    return arguments.run(arguments)


def _measure(measure: Callable[[argparse.Namespace], Result], arguments: argparse.Namespace) -> int:
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result.as_map(), indent=2))
    else:
        show(result)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main())
