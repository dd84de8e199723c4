"""The `sidecar` command: argv → settings → one call. Exit codes are decided here alone."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from sidecar import __version__
from sidecar.cli.exits import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE
from sidecar.cli.terminal import complain
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

    What the user can mend is one line on stderr: 78 for a setting or a model that cannot be
    used as configured, 75 where disk or memory ran out, 69 where a daemon does not answer.
    """
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(words).parse_args(words)
    try:
        return int(arguments.run(arguments))
    except TemporaryError as error:
        complain(error)
        return EX_TEMPFAIL
    except (ConfigError, PlanError, ModelError, SocketUnavailable, HandedOverError) as error:
        complain(error)
        return EX_CONFIG
    except ConnectionError as error:
        complain(error)
        return EX_UNAVAILABLE


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return what parses `words`.

    It knows all commands, unless the first word is one: then the others are not imported, for
    a daemon would start later and hold more for what it never does.
    """
    parser = argparse.ArgumentParser(
        prog="sidecar", description="Quantized embeddings and reranking over a Unix socket."
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in words[:1] if words and words[0] in _COMMANDS else _COMMANDS:
        import_module(f"sidecar.cli.{name}").add(commands)
    return parser
