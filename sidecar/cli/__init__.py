"""The `sidecar` command: parses arguments, runs one command, maps exceptions to exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from sidecar import __version__
from sidecar.cli.exits import EX_CONFIG, EX_PIPE, EX_TEMPFAIL, EX_UNAVAILABLE
from sidecar.cli.terminal import complain, flush
from sidecar.config import ConfigError
from sidecar.models.errors import ModelError, TemporaryError
from sidecar.plan import PlanError
from sidecar.serving.transport.listener import SocketUnavailable
from sidecar.systemd import HandedOverError

_COMMANDS = (
    "demo",
    "serve",
    "gateway",
    "embed",
    "plan",
    "prepare",
    "verify",
    "evaluate",
    "config",
    "status",
    "metrics",
    "top",
    "logs",
    "report",
    "events",
    "doctor",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Errors that the user can fix are one line on stderr: 78 for a setting or model that cannot be
    used as configured, 75 if disk or memory ran out, 69 if a daemon does not answer. If nobody
    reads standard output any more, nothing is said, and the code is 141.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(words).parse_args(words)
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader has left, as in `sidecar config | head`. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_PIPE
    except TemporaryError as error:
        complain(error)
        return EX_TEMPFAIL
    except (ConfigError, PlanError, ModelError, SocketUnavailable, HandedOverError) as error:
        complain(error)
        return EX_CONFIG
    except ConnectionError as error:
        complain(error)
        return EX_UNAVAILABLE


def _run(arguments: argparse.Namespace) -> int:
    code = int(arguments.run(arguments))
    flush()  # a pipe may break only now
    return code


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the argument parser for `words`.

    If the first word is a command, only that one is imported: a daemon should not spend start-up
    time and memory on the others.
    """
    parser = argparse.ArgumentParser(
        prog="sidecar", description="Quantized embeddings and reranking over a Unix socket."
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in words[:1] if words and words[0] in _COMMANDS else _COMMANDS:
        import_module(f"sidecar.cli.{name}").add(commands)
    return parser
