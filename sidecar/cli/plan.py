"""`sidecar plan`: what this host is, what each quantization measured here, and the choice."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from sidecar import events
from sidecar.cli.exits import EX_OK
from sidecar.cli.settings import add_flags, settings_of
from sidecar.config import to_config
from sidecar.host import Host, read_host
from sidecar.models import library, manifest
from sidecar.models.folder import describe
from sidecar.models.library import Wanted
from sidecar.models.manifest import Manifest
from sidecar.models.precision import Precision
from sidecar.models.source import locate
from sidecar.plan import Plan, make_plan


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("plan", help="measure this host and say what would be served")
    parser.add_argument("model", nargs="?", help="folder or hub id (default: the embedding model)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(
        parser,
        "use_quantization", "quantization", "threads", "embedding_model", "cache_dir", "int8_floor",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, or read what was measured, and print it. Raises `ModelError` and `PlanError`."""
    config = to_config(settings_of(arguments))
    host = read_host()
    plan = make_plan(
        use_quantization=config.use_quantization,
        quantization=config.quantization,
        threads=config.threads,
        host=host,
    )
    name = arguments.model or config.embedding_model
    wanted = Wanted(
        name=name,
        task=describe(locate(name)).task,
        precision=Precision(plan.quantization, plan.weight_bits, config.int8_floor),
        reason=plan.reason,
    )
    events.configure("warning", sys.stderr.buffer)
    with Console(stderr=True).status(f"measuring {name} on this host"):
        found = manifest.read(library.artifact_of(wanted, config.cache_dir))
    if arguments.json:
        print(json.dumps(_as_map(host, plan, found), indent=2))
    else:
        Console().print(_render(host, plan, found))
    return EX_OK


def _as_map(host: Host, plan: Plan, found: Manifest) -> dict[str, Any]:
    return {
        "host": {**asdict(host), "isa": sorted(host.isa)},
        "threads": plan.threads,
        "weight_bits": plan.weight_bits,
        "model": found.name,
        "candidates": {name: asdict(speed) for name, speed in found.speed.items()},
        "bytes": {"none": found.bytes_fp32, found.quantization: found.bytes_weights},
        "quality": asdict(found.quality) if found.quality else None,
        "kept_in_fp32": list(found.kept),
        "choice": found.quantization,
        "reason": library.reason_of(plan.reason, found),
    }


def _render(host: Host, plan: Plan, found: Manifest) -> RenderableType:
    facts = Table.grid(padding=(0, 3, 0, 0))
    facts.add_row("processor", host.cpu_model)
    facts.add_row("instructions", ", ".join(sorted(host.isa)) or "none that matter")
    facts.add_row("weights", f"{plan.weight_bits} bits do not saturate here")
    facts.add_row("cores granted", f"{host.cores}; {plan.threads} inference threads")
    facts.add_row("memory granted", f"{host.memory_bytes / 2**30:.1f} GiB")
    choice = Table.grid(padding=(0, 3, 0, 0))
    choice.add_row("choice", f"{found.quantization} for {found.name}")
    choice.add_row("because", library.reason_of(plan.reason, found))
    return Group(facts, "", _candidates(found), "", choice)


def _candidates(found: Manifest) -> Table:
    table = Table("", "short", "long", "mixed", "weights", "closeness to FP32", box=None)
    for name, speed in found.speed.items():
        ours = name == found.quantization and name != "none"
        size = found.bytes_weights if ours else found.bytes_fp32 if name == "none" else None
        table.add_row(
            name,
            f"{speed.short_ms:.2f} ms",
            f"{speed.long_ms:.2f} ms",
            f"{speed.mixed_ms:.2f} ms",
            f"{size / 1e6:.1f} MB" if size else "",
            f"mean {found.quality.mean:.4f}, min {found.quality.min:.4f}"
            if ours and found.quality
            else "",
        )
    return table
