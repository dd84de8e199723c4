"""One model on all sides, which take turns batch by batch: `python -m bench.turns`.

It takes an order as JSON on standard input and prints what it measured. The process is its own,
so that nothing of one model is left when the next one is measured.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from bench import texts
from bench.daemon import pause
from bench.in_sidecar import InSidecar
from bench.in_torch import InTorch
from bench.lengths import Exactly
from bench.lone import FP32, INT8
from sidecar.encoder.architecture import Float32
from sidecar.models.closeness import closeness
from sidecar.models.description import Task
from sidecar.models.manifest import TOKENIZER
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Text

Compute: TypeAlias = Callable[[Sequence[Text]], Float32]
_BATCH = 16
_SOURCES = 400  # texts to take words from


def main(order: dict[str, Any]) -> None:
    """Print the seconds of each side and length, torch's bytes, and how close its INT8 comes."""
    artifacts, threads, task = order["artifacts"], order["threads"], order["task"]
    ours = {plan: InSidecar(Path(path), threads) for plan, path in artifacts.items()}
    fp32 = InTorch.in_fp32(Path(order["folder"]), task, threads)
    int8 = fp32.in_int8()
    sides: dict[str, Compute] = {**ours, FP32: fp32, INT8: int8}
    batches = {tokens: _batch(order, tokens) for tokens in order["lengths"]}
    for tokens, batch in batches.items():
        for each in ours.values():
            assert each.tokens(batch) == [tokens] * len(batch)
    print(
        json.dumps(
            {
                "seconds": _measure(sides, batches, order["rounds"]),
                "weight_bytes": {FP32: fp32.weight_bytes, INT8: int8.weight_bytes},
                "quality": _quality(task, fp32, int8),
            }
        )
    )


def _batch(order: Mapping[str, Any], tokens: int) -> list[Text]:
    artifact = Path(next(iter(order["artifacts"].values())))
    make = Exactly(artifact / TOKENIZER, texts.read(Path(order["data"]), _SOURCES))
    one = make.pair if order["task"] == "rerank" else make.text
    return [one(tokens) for _ in range(_BATCH)]


def _measure(
    sides: Mapping[str, Compute], batches: Mapping[int, Sequence[Text]], rounds: int
) -> dict[str, dict[int, list[float]]]:
    seconds = {name: {tokens: list[float]() for tokens in batches} for name in sides}
    for number in range(rounds + 1):
        for tokens, batch in batches.items():
            for name, compute in sides.items():
                pause()
                started = time.perf_counter()
                compute(batch)
                if number:  # the first round warms up
                    seconds[name][tokens].append(time.perf_counter() - started)
    return seconds


def _quality(task: Task, fp32: Compute, int8: Compute) -> dict[str, Any]:
    inputs = probe_inputs(task)
    return asdict(closeness(task, fp32(inputs), int8(inputs)))


if __name__ == "__main__":
    main(json.load(sys.stdin))
