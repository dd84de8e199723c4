"""Where the time of a graph goes, by what its operators are for, as the engine itself tells."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from sidecar.models.compute import is_as_stored
from sidecar.models.rows import Row

MULTIPLICATIONS, ATTENTION = "multiplications of weights", "attention"
_REST = "look-ups, positions, pooling"
_PURPOSES = {
    MULTIPLICATIONS: ("MatMulIntegerToFloat", "MatMul"),
    ATTENTION: ("MultiHeadAttention",),
    "GELU": ("FastGelu", "Gelu", "BiasGelu"),
    "integers and scales": (
        "QuantizeLinear", "Mul", "Abs", "ReduceMax", "Max", "Squeeze", "Expand", "Split",
    ),
    "sums and biases": ("Add", "Sum"),
    "normalization": ("LayerNormalization",),
}  # fmt: skip
_PURPOSE_OF = {name: purpose for purpose, names in _PURPOSES.items() for name in names}


def milliseconds(
    graph: Path, quantization: str, rows: Sequence[Row], place: Path
) -> Mapping[str, float]:
    """Return the time of a row in the mean, on one thread, by purpose; the longest first."""
    as_stored = is_as_stored(quantization)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    options.profile_file_prefix = str(place / "profile")
    options.add_session_config_entry("session.disable_prepacking", str(int(as_stored)))
    session = ort.InferenceSession(
        str(graph),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ConstantFolding"] if as_stored else None,
    )
    for row in rows:
        session.run(None, {"ids": row.ids[np.newaxis], "token_types": row.token_types[np.newaxis]})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: Counter[str] = Counter()
    for event in filter(_is_operator, events):
        times[_PURPOSE_OF.get(event["args"]["op_name"], _REST)] += event["dur"]
    return {purpose: time / 1e3 / len(rows) for purpose, time in times.most_common()}


def _is_operator(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
