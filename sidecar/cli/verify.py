"""`sidecar verify`: check that a model's output equals that of sentence-transformers."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sidecar.cli.console import Console
from sidecar.cli.exits import EX_OK, EX_UNAVAILABLE, EX_UNWELL
from sidecar.cli.terminal import say
from sidecar.models import manifest as manifests
from sidecar.models import torch_model
from sidecar.models.damage import check_artifact
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.exact import read_exact
from sidecar.models.folder.describe import task_of
from sidecar.models.oracle.compare import DiffersError
from sidecar.models.source import display_name, locate
from sidecar.models.torch_pipeline import Source
from sidecar.models.verification import Verification

_GRAPH, _LIBRARY, _ARTIFACT = "graph", "library", "artifact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result for one model.

    `computed_by` is "graph", "library" for sentence-transformers itself, or "artifact" if the
    manifest of an artifact was read. `verified` is the proof; `reason` says why there is none, or
    why Sidecar has no graph for the model.
    """

    model: str
    computed_by: str
    verified: Verification | None = None
    reason: str | None = None
    differs: bool = False


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser(
        "verify", help="compare models with sentence-transformers, by token ids and outputs"
    )
    parser.add_argument("models", nargs="+", metavar="model", help="folder, artifact or hub id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print the results; return 0, 1 for a difference, 69 if unverified.

    Raises `ModelError` for a model that cannot be read and for a damaged artifact.
    """
    outcomes = [_verify(name) for name in arguments.models]
    if arguments.json:
        say(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            say(f"{outcome.model}: {_summary(outcome)}")
    return _exit_code(outcomes)


def _verify(name: str) -> Outcome:
    folder = locate(name)
    if manifests.is_artifact(folder):
        return _in_artifact(folder)
    shown = display_name(name)
    with Console(stderr=True).status(f"comparing {shown} with sentence-transformers"):
        try:
            return _by_graph(shown, folder)
        except UnknownArchitectureError as error:
            model = torch_model.load(Source(folder, shown, task_of(folder)))
            differs = isinstance(error, DiffersError)
            return Outcome(
                model=shown,
                computed_by=_LIBRARY,
                verified=model.verified,
                reason=str(error),
                differs=differs,
            )


def _by_graph(name: str, folder: Path) -> Outcome:
    with TemporaryDirectory(prefix="sidecar-verify-") as scratch:
        verified = read_exact(folder, Path(scratch)).verified
    reason = None if verified else "install the extra `server` to verify"
    return Outcome(model=name, computed_by=_GRAPH, verified=verified, reason=reason)


def _in_artifact(folder: Path) -> Outcome:
    check_artifact(folder)  # the proof only holds for undamaged files
    manifest = manifests.read(folder)
    reason = "prepare it again from its source with the extra `server` installed"
    return Outcome(
        model=manifest.name,
        computed_by=_ARTIFACT,
        verified=manifest.verified,
        reason=None if manifest.verified else reason,
    )


def _summary(outcome: Outcome) -> str:
    if outcome.computed_by == _LIBRARY:
        return f"served by sentence-transformers itself: {outcome.reason}"
    return str(outcome.verified) if outcome.verified else f"not verified: {outcome.reason}"


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    if any(outcome.differs for outcome in outcomes):
        return EX_UNWELL
    if any(outcome.verified is None for outcome in outcomes):
        return EX_UNAVAILABLE
    return EX_OK
