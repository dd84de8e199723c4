"""The only interface to onnxruntime: a graph in, rows of floats out."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidecar.encoder.architecture import Float32

# The official wheels send telemetry and store a device id on disk, unless this is set before the
# library is loaded. This daemon must not send anything off the host unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

_PROVIDERS = ["CPUExecutionProvider"]


class Session:
    """A graph ready to run; `run` is thread-safe.

    onnxruntime releases the GIL while it computes, so the daemon's own threads provide the
    parallelism, without barriers between rows or a thread pool that spins on an idle host. If
    `threads` is more than one, they share each row and spin only between its operators.
    """

    def __init__(self, model: Path | bytes, *, as_stored: bool = False, threads: int = 1) -> None:
        """Load `model`, given as a path or as bytes.

        `as_stored`: compute with the weights as they are stored. Otherwise onnxruntime folds
        constants and prepacks weights for speed, which would expand 4-bit weights in memory.
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
        """Return float32 [1, outputs] for one row; both inputs are int64 [1, tokens]."""
        return self.run_for(["vectors"], {"ids": ids, "token_types": token_types})[0]

    def run_for(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the named outputs of the graph for the inputs in `feeds`."""
        values: list[Float32] = self._session.run(outputs, dict(feeds))
        return values


def lay_out(model: Path, output: Path) -> None:
    """Write `model` optimised and prepacked for this processor to `output`.

    The weights go to a file beside it, which every session maps, so that all share the memory.
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
    options.log_severity_level = 3  # errors only: warnings would bypass our event log
    # Row lengths vary, so memory patterns do not repeat. The arena stays enabled: it retains what
    # the longest rows on all threads need at once, which the model's maximum length bounds. Without
    # it, every wide activation may be mapped and faulted in again, which costs more than most
    # operators.
    options.enable_mem_pattern = False
    return options


def version() -> str:
    """Return the version of onnxruntime."""
    return str(ort.__version__)
