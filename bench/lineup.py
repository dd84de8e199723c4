"""The models to compare: where they are, and their artifacts, prepared as they would be served.

Two of them cannot be had here; models of their shape stand in, with random weights.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from bench import shapes
from sidecar.cli.planning import host_and_plan, precision
from sidecar.config import Config
from sidecar.models import manifest as manifests
from sidecar.models.description import Description
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.manifest import Manifest
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.prepare_subprocess import prepare_in_subprocess
from sidecar.models.source import DEFAULT_EMBEDDING_MODEL, locate

PLANS = ("none", "int8", "int4")
_MPNET, _RERANKER = "all-mpnet-base-v2", "reranker-minilm-l6"
_STAND_INS = {"e5-base-v2": "bert-base", "bge-reranker-base": "xlm-roberta-base"}
MODELS = (DEFAULT_EMBEDDING_MODEL, _MPNET, "e5-base-v2", _RERANKER, "bge-reranker-base")


@dataclass(frozen=True, slots=True)
class Entry:
    """A model, and its artifacts by plan; `trained` is false where its weights are random."""

    name: str
    folder: Path
    artifacts: Mapping[str, Path]
    trained: bool

    @property
    def manifests(self) -> dict[str, Manifest]:
        return {plan: manifests.read(path) for plan, path in self.artifacts.items()}

    @property
    def description(self) -> Description:
        return next(iter(self.manifests.values())).description


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME",
                        help=f"which of {', '.join(MODELS)}; all by default")  # fmt: skip
    parser.add_argument("--plans", type=_plans, default=PLANS, metavar="PLAN,…",
                        help=f"which of {','.join(PLANS)}; all by default")  # fmt: skip
    parser.add_argument("--mpnet", type=Path, metavar="FOLDER", help=f"where {_MPNET} is")
    parser.add_argument("--reranker", type=Path, default=Path("../shared/models") / _RERANKER,
                        metavar="FOLDER", help=f"where {_RERANKER} is")  # fmt: skip
    parser.add_argument("--artifacts", type=Path, metavar="DIR",
                        help="keep there what is prepared, and take it from there")  # fmt: skip


def assemble(
    arguments: argparse.Namespace, workshop: Path
) -> tuple[Sequence[Entry], dict[str, str]]:
    """Return the models that were asked for, and why others are missing.

    What is not in `workshop` is prepared there: for base-size models in int4 that takes minutes.
    """
    folders = {_MPNET: arguments.mpnet, _RERANKER: arguments.reranker}
    entries, missing = [], {}
    for name in arguments.models:
        if name in folders and not (folders[name] and folders[name].is_dir()):
            missing[name] = f"there is no folder {folders[name]}" if folders[name] else "no --mpnet"
            continue
        entries.append(_entry(name, folders.get(name), arguments.plans, workshop))
    return entries, missing


def _entry(name: str, folder: Path | None, plans: Sequence[str], workshop: Path) -> Entry:
    shape = _STAND_INS.get(name)
    source = _written(shape, workshop) if shape else folder or locate(name)
    artifacts = {
        plan: _prepared(source, name, _precision(plan, trained=not shape), workshop)
        for plan in plans
    }
    return Entry(f"{name} (shape)" if shape else name, source, artifacts, trained=not shape)


def _written(shape: str, workshop: Path) -> Path:
    folder = workshop / shape
    if not (folder / "tokenizer.json").is_file():  # the last one
        # Apart: what this process maps of torch would count as shared in those it measures.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(shapes.write, shape, folder).result()
    return folder


def _precision(plan: str, *, trained: bool) -> Precision:
    config = Config(quantization=plan, device="cpu")
    served = precision(config, host_and_plan(config)[1])
    # Random weights have no quality: no layer of theirs is to stay in FP32 for it.
    return served if trained else replace(served, floor=-1)


def _prepared(folder: Path, name: str, served: Precision, workshop: Path) -> Path:
    artifact = workshop / f"{name}-{served.quantization}"
    if not _is_there(artifact, folder, served):
        print(f"preparing {name} in {served.quantization}", file=sys.stderr)
        prepare_in_subprocess(
            PrepareRequest(folder=folder, name=name, precision=served, output=artifact)
        )
    return artifact


def _is_there(artifact: Path, folder: Path, served: Precision) -> bool:
    if not manifests.is_artifact(artifact):
        return False
    manifest = manifests.read(artifact)
    # The model may have been replaced since, and this may be another host.
    bits = manifest.quantization == "none" or manifest.weight_bits == served.weight_bits
    return bits and manifest.source_sha256 == fingerprint(folder, Digests())


def _plans(text: str) -> tuple[str, ...]:
    if unknown := set(text.split(",")) - set(PLANS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {PLANS}")
    return tuple(text.split(","))
