"""The one place that knows onnxruntime: a graph in, rows of floats out."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32

# Its official wheels report to their maker and leave a device id on the disk, unless this is
# set before the library is loaded. Nothing leaves a host by way of this daemon unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

_PROVIDERS = ["CPUExecutionProvider"]


class Session:
    """A graph ready to run; `run` may be called from many threads at once.

    onnxruntime releases the GIL while it computes, so the daemon's own threads are the
    parallelism: no barrier between rows, and no spinning pool on an idle host. `threads` more
    than one share a row; they spin between its operators, and no longer.
    """

    def __init__(self, model: Path | bytes, *, as_stored: bool = False, threads: int = 1) -> None:
        """Load `model`, its path or its bytes.

        `as_stored`: compute with the weights as they are stored. Otherwise the engine works out
        what follows from constants and lays weights out anew for speed, which for 4-bit weights
        would be to unpack them all and keep them so.
        """
        options = _options(threads)
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if as_stored:
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=_PROVIDERS,
            disabled_optimizers=["ConstantFolding"] if as_stored else None,
        )

    def run(self, ids: NDArray[np.int64], token_types: NDArray[np.int64]) -> Float32:
        """Return float32 [1, outputs] for one row, int64 [1, tokens]."""
        return self.run_for(["vectors"], {"ids": ids, "token_types": token_types})[0]

    def run_for(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the named outputs of the graph, fed with `feeds`."""
        values: list[Float32] = self._session.run(outputs, dict(feeds))
        return values


def lay_out(model: Path, output: Path) -> None:
    """Write `model` as this processor computes it, its weights in a file beside `output`.

    A session of it maps them as they lie there, and so do all others of it.
    """
    options = _options(threads=1)
    options.optimized_model_filepath = str(output)
    for key, value in {
        "save_external_prepacked_constant_initializers": "1",
        "optimized_model_external_initializers_file_name": f"{output.name}.data",
        "optimized_model_external_initializers_min_size_in_bytes": "1024",
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(str(model), options, providers=_PROVIDERS)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are not events of ours
    # Lengths differ from row to row, so no memory pattern repeats. The arena stays on: it
    # keeps what the longest rows on all threads needed at once, which the model's maximum
    # length bounds, and without it every wide activation may be mapped and faulted in
    # anew, which then costs more than most operators do.
    options.enable_mem_pattern = False
    return options


def version() -> str:
    """Return the version of the engine."""
    return str(ort.__version__)
