"""`sidecar prepare`: turn a model folder or hub id into an artifact."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sidecar.cli.bars import bars
from sidecar.cli.exits import EX_OK
from sidecar.cli.planning import FLOORS, host_and_plan, precision
from sidecar.cli.settings import add_flags, settings_of
from sidecar.cli.terminal import say
from sidecar.config import to_config
from sidecar.memory import let_go_early
from sidecar.models.folder.describe import describe
from sidecar.models.manifest import Manifest
from sidecar.models.place import cached_path
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.source import display_name, locate
from sidecar.models.texts import read_texts
from sidecar.models.trust import Owner, refuse_untrusted_cache


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("prepare", help="quantize a model into an artifact")
    parser.add_argument("model", help="folder or hub id of a sentence-transformers model")
    parser.add_argument("--output", type=Path, help="the artifact's folder (default: the cache)")
    parser.add_argument(
        "--calibration", type=Path, help="representative texts to calibrate on: .txt or .jsonl"
    )
    parser.add_argument(
        "--portable", action="store_true", help="prepare for any processor, not only this one"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    add_flags(parser, "use_quantization", "quantization", "cache_dir", *FLOORS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the model and print a summary. Raises `ModelError` if it cannot be prepared."""
    config = to_config(settings_of(arguments))
    _, plan = host_and_plan(replace(config, device="cpu"))  # artifacts are for CPUs
    wanted = precision(config, plan, portable=arguments.portable)
    folder, cache = locate(arguments.model), config.cache_dir
    if arguments.output is None and cache.is_dir():  # root may prepare in a service's cache
        refuse_untrusted_cache(cache, owner=Owner.of_folder(cache))
    order = PrepareRequest(
        folder=folder,
        name=display_name(arguments.model),
        precision=wanted,
        output=arguments.output or cached_path(folder, wanted, cache),
        texts=read_texts(arguments.calibration, describe(folder).task)
        if arguments.calibration
        else (),
    )
    let_go_early()
    manifest = _prepare(order)
    if arguments.json:
        say(json.dumps(asdict(manifest), indent=2))
    else:
        say(_summary(manifest, order.output))
    return EX_OK


def _prepare(order: PrepareRequest) -> Manifest:
    with bars() as show:
        return prepare(order, show)


def _summary(manifest: Manifest, output: Path) -> str:
    before, after = manifest.bytes_fp32 / 1e6, manifest.bytes_weights / 1e6
    lines = [
        f"{manifest.name}: {manifest.quantization} in {manifest.seconds:.1f} s",
        f"  weights    {before:.1f} MB -> {after:.1f} MB ({after / before:.0%})",
        f"  kernel     {manifest.kernel}",
        *_closeness(manifest),
        f"  verified   {manifest.verified or 'no: install the extra `server` to verify'}",
    ]
    if manifest.kept:
        lines.append(f"  kept FP32  {', '.join(manifest.kept)}")
    return "\n".join([*lines, f"  artifact   {output}"])


def _closeness(manifest: Manifest) -> list[str]:
    quality, task = manifest.quality, manifest.description.task
    if quality is None:
        return []
    what = {"embed": "cosine to FP32", "rerank": "1 - distance to FP32's score"}
    values = f"mean {quality.mean:.4f}, p1 {quality.p1:.4f}, min {quality.min:.4f}"
    return [f"  closeness  {what[task]}: {values} on {quality.texts} probes"]
