"""A process that has one model loaded and warm, and nothing else: `python -m bench.lone`.

It takes what to load as JSON on standard input and prints what it holds, once it has computed
40 of the built-in probe texts, short ones and long ones.
"""

import gc
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import memory
from sidecar.models.probes import probe_inputs

_TEXTS = 40
SIDECAR, FP32, INT8 = "sidecar", "sentence-transformers", "quantize_dynamic"


def main(order: dict[str, Any]) -> None:
    model = _load(order["side"], Path(order["folder"]), order["task"], order["threads"])
    gc.collect()  # what it was made of, too, if that is another model
    model(probe_inputs(order["task"])[:_TEXTS])
    held = memory.held("self")
    print(json.dumps({"pss": held["Pss"], "rss": held["Rss"]}))


def _load(side: str, folder: Path, task: str, threads: int) -> Any:
    # What the other sides import is not to be in this one's memory.
    if side == SIDECAR:
        return import_module("bench.in_sidecar").InSidecar(folder, threads)
    fp32 = import_module("bench.in_torch").InTorch.in_fp32(folder, task, threads)
    return fp32.in_int8() if side == INT8 else fp32


if __name__ == "__main__":
    main(json.load(sys.stdin))
