"""`sidecar prepare`: turn a model folder or hub id into an artifact."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sidecar.cli.exits import EX_OK
from sidecar.cli.settings import add_flags, settings_of
from sidecar.config import to_config
from sidecar.host import read_host
from sidecar.models import library
from sidecar.models.manifest import Manifest
from sidecar.models.prepare import prepare
from sidecar.models.source import display_name, locate
from sidecar.plan import make_plan


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("prepare", help="quantize a model into an artifact")
    parser.add_argument("model", help="folder or hub id of a sentence-transformers model")
    parser.add_argument("--output", type=Path, help="the artifact's folder (default: the cache)")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    add_flags(parser, "use_quantization", "quantization", "cache_dir")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the model and say what came out. Raises `ModelError` for one that cannot be."""
    config = to_config(settings_of(arguments))
    plan = make_plan(
        use_quantization=config.use_quantization,
        quantization=config.quantization,
        threads=config.threads,
        host=read_host(),
    )
    folder = locate(arguments.model)
    output = arguments.output or library.cached_path(folder, plan.quantization, config.cache_dir)
    manifest = prepare(folder, display_name(arguments.model), plan.quantization, output)
    print(json.dumps(asdict(manifest), indent=2) if arguments.json else _summary(manifest, output))
    return EX_OK


def _summary(manifest: Manifest, output: Path) -> str:
    before, after = manifest.bytes_fp32 / 1e6, manifest.bytes_weights / 1e6
    lines = [
        f"{manifest.name}: {manifest.quantization} in {manifest.seconds:.1f} s",
        f"  weights    {before:.1f} MB -> {after:.1f} MB ({after / before:.0%})",
        f"  kernel     {manifest.kernel}",
    ]
    if quality := manifest.quality:
        what = "cosine to FP32" if manifest.description.task == "embed" else "1 - score difference"
        values = f"mean {quality.mean:.4f}, p1 {quality.p1:.4f}, min {quality.min:.4f}"
        lines.append(f"  closeness  {what}: {values} on {quality.texts} probes")
    return "\n".join([*lines, f"  artifact   {output}"])
