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


class Session:
    """A graph ready to run, one thread a run; `run` may be called from many threads at once.

    onnxruntime releases the GIL while it computes, so the daemon's own threads are the
    parallelism: no barrier between rows, and no spinning pool on an idle host.
    """

    def __init__(self, model: Path | bytes, *, as_stored: bool = False) -> None:
        """Load `model`, its path or its bytes.

        `as_stored`: compute with the weights as they are stored. Otherwise the engine works out
        what follows from constants and lays weights out anew for speed, which for 4-bit weights
        would be to unpack them all and keep them so.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: its warnings are not events of ours
        # Lengths differ from row to row, so no memory pattern repeats. The arena stays on: it
        # keeps what the longest rows on all threads needed at once, which the model's maximum
        # length bounds, and without it every wide activation may be mapped and faulted in
        # anew, which then costs more than most operators do.
        options.enable_mem_pattern = False
        if as_stored:
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["ConstantFolding"] if as_stored else None,
        )

    def run(self, ids: NDArray[np.int64], token_types: NDArray[np.int64]) -> Float32:
        """Return float32 [1, outputs] for one row, int64 [1, tokens]."""
        return self.run_for(["vectors"], {"ids": ids, "token_types": token_types})[0]

    def run_for(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[Float32]:
        """Return the named outputs of the graph, fed with `feeds`."""
        values: list[Float32] = self._session.run(outputs, dict(feeds))
        return values


def version() -> str:
    """Return the version of the engine."""
    return str(ort.__version__)
