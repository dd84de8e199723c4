"""`sidecar plan`: show this host, the measurements of each quantization on it, and the choice."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from sidecar import events
from sidecar.cli.console import Console
from sidecar.cli.exits import EX_OK
from sidecar.cli.planning import FLOORS, host_and_plan, precision
from sidecar.cli.settings import add_flags, settings_of
from sidecar.cli.terminal import say
from sidecar.config import Config, to_config
from sidecar.events.writer import Lines
from sidecar.host import Host
from sidecar.models import library, manifest
from sidecar.models.announcements import reason_of
from sidecar.models.damage import check_artifact
from sidecar.models.description import Task
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.layout import Layout, layout_of
from sidecar.models.library import Wanted
from sidecar.models.manifest import Manifest, Quality, Speed
from sidecar.models.source import locate
from sidecar.models.torch_model import TorchModel
from sidecar.plan import Plan

_STDERR = 2
_WEIGHTS = {7: "8 bits shared by each pair: more would saturate here", 8: "8 bits each"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model's measurements on this host; `speed` and `sizes` (bytes) are by quantization.

    `kept` names the layers kept in FP32; `fell_back` is the reason if the whole model is. `alone`
    is the speed of a text that is computed while nothing else is, by number of threads;
    `intra_op_threads` is the number chosen.
    """

    model: str
    choice: str
    speed: Mapping[str, Speed]
    sizes: Mapping[str, int]
    quality: Quality | None
    kept: tuple[str, ...] = ()
    fell_back: str | None = None
    alone: Mapping[str, Speed] = field(default_factory=dict)
    intra_op_threads: int = 1

    def because(self, reason: str) -> str:
        """Return the plan's `reason`, with the measurements appended."""
        measured = reason_of(reason, self.speed)
        return f"{measured}; {self.fell_back}" if self.fell_back else measured


def add(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = commands.add_parser("plan", help="measure this host and show what would be served")
    parser.add_argument("model", nargs="?", help="folder or hub id (default: the embedding model)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_flags(
        parser,
        "use_quantization", "quantization", "device", "threads", "embedding_model", "prompts",
        "cache_dir", *FLOORS,
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, or read earlier measurements, and print them. Raises `ModelError`, `PlanError`."""
    config = to_config(settings_of(arguments))
    host, plan = host_and_plan(config)
    name = arguments.model or config.embedding_model
    events.configure(Lines(_STDERR), events.Selection("warning"))
    with Console(stderr=True).status(f"measuring {name} on this host"):
        found = _measure(name, plan, config)
    if arguments.json:
        say(json.dumps(_as_map(host, plan, found), indent=2))
    else:
        Console().print(_render(host, plan, found))
    return EX_OK


def _measure(name: str, plan: Plan, config: Config) -> Found:
    folder, on_cuda = locate(name), plan.device == "cuda"
    wanted = Wanted(
        name=name,
        task=_task(folder, on_cuda=on_cuda),
        precision=precision(config, plan),
        reason=plan.reason,
        device=plan.device,
        prompts=config.prompts,
    )
    if on_cuda:
        return _found_by_torch(library.measure_with_torch(wanted))

    def found(folder: Path, artifact: Path) -> Found:
        check_artifact(artifact)  # its measurements only hold for undamaged files
        layout = layout_of(artifact, config.cache_dir, plan.threads)
        return _found_in(library.manifest_of(name, folder, artifact), layout)

    return library.with_artifact(wanted, config.cache_dir, found)


def _task(folder: Path, *, on_cuda: bool) -> Task:
    if manifest.is_artifact(folder):  # it holds the measurements of the host that prepared it
        return manifest.read(folder).description.task
    return task_of(folder) if on_cuda else describe(folder).task


def _found_in(artifact: Manifest, layout: Layout) -> Found:
    return Found(
        model=artifact.name,
        choice=artifact.quantization,
        speed=artifact.speed,
        sizes={"none": artifact.bytes_fp32, artifact.quantization: artifact.bytes_weights},
        quality=artifact.quality,
        kept=artifact.kept,
        alone=layout.speed,
        intra_op_threads=layout.threads,
    )


def _found_by_torch(model: TorchModel) -> Found:
    proof, served = model.proof, {model.quantization: model.weight_bytes}
    return Found(
        model=model.name,
        choice=model.quantization,
        speed=proof.speed if proof else {},
        sizes={"none": proof.bytes_fp32, **served} if proof else served,
        quality=proof.quality if proof else None,
        fell_back=proof.fell_back if proof else None,
    )


def _as_map(host: Host, plan: Plan, found: Found) -> dict[str, Any]:
    return {
        "host": {**asdict(host), "isa": sorted(host.isa)},
        "device": plan.device,
        "threads": plan.threads,
        "weight_bits": plan.weight_bits,
        "model": found.model,
        "candidates": {name: asdict(speed) for name, speed in found.speed.items()},
        "bytes": dict(found.sizes),
        "quality": asdict(found.quality) if found.quality else None,
        "kept_in_fp32": list(found.kept),
        "alone": {
            "threads": found.intra_op_threads,
            "speed": {name: asdict(speed) for name, speed in found.alone.items()},
        },
        "choice": found.choice,
        "reason": found.because(plan.reason),
    }


def _render(host: Host, plan: Plan, found: Found) -> RenderableType:
    facts = Table.grid(padding=(0, 3, 0, 0))
    facts.add_row("processor", host.cpu_model)
    facts.add_row("instructions", ", ".join(sorted(host.isa)) or "none relevant")
    facts.add_row("weights", _WEIGHTS[plan.weight_bits])
    facts.add_row("CUDA device", host.cuda or "none")
    facts.add_row("computes on", {"cpu": "the processor", "cuda": "the CUDA device"}[plan.device])
    facts.add_row("available cores", f"{host.cores}; {plan.threads} inference threads")
    facts.add_row("available memory", f"{host.memory_bytes / 2**30:.1f} GiB")
    choice = Table.grid(padding=(0, 3, 0, 0))
    choice.add_row("choice", f"{found.choice} for {found.model}")
    choice.add_row("because", found.because(plan.reason))
    if found.alone:
        threads = "1 thread" if found.intra_op_threads == 1 else f"{found.intra_op_threads} threads"
        choice.add_row("a single text", f"is computed on {threads}; {_alone(found)}")
    return Group(facts, "", _candidates(found), "", choice)


def _alone(found: Found) -> str:
    return "; ".join(
        f"{name} {speed.short_ms:.2f} ms (short), {speed.long_ms:.2f} ms (a paragraph)"
        for name, speed in found.alone.items()
    )


def _candidates(found: Found) -> Table:
    table = Table("", "short", "long", "mixed", "weights", "closeness to FP32", box=None)
    for name, speed in found.speed.items():
        size = found.sizes.get(name)
        ours = name == found.choice and name != "none"
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
