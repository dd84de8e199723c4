"""The quality gate of half precision: load it and FP32, compare and time them, and serve one."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sidecar.encoder.architecture import Float32
from sidecar.models.errors import ModelError
from sidecar.models.manifest import Quality, Speed
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.speed import take_turns
from sidecar.models.torch_model import QUANTIZATIONS, Proof, TorchModel, load
from sidecar.models.torch_pipeline import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """Half precision compared with FP32; `failure` is why it cannot serve, or None."""

    failure: str | None
    quality: Quality | None = None
    speed: Mapping[str, Speed] = field(default_factory=dict)


def load_fp16(source: Source, *, device: str, floor: float, dtype: str = "float16") -> TorchModel:
    """Return the model in `dtype` on `device`, or in FP32 if `dtype` is not close enough to it.

    `floor` is the least mean closeness on the probes (see `Quality`). The returned model's `proof`
    holds the measurements. Raises `ModelError` if it cannot be loaded in FP32.
    """
    served = _measured(source, device, floor, dtype)
    _return_memory()
    return served


def _measured(source: Source, device: str, floor: float, dtype: str) -> TorchModel:
    started = time.perf_counter()
    served = exact = load(source, device=device)
    try:
        half = load(source, device=device, dtype=dtype)
    except ModelError as error:  # not every operation exists in every precision
        found = _Comparison(failure=str(error))
    else:
        found = _compare(exact, half, floor)
        served = exact if found.failure else half
    served.verified = exact.verified
    served.proof = Proof(
        requested=QUANTIZATIONS[dtype],
        quality=found.quality,
        speed=found.speed,
        fell_back=found.failure,
        bytes_fp32=exact.weight_bytes,
        seconds=round(time.perf_counter() - started, 3),
    )
    return served


def _compare(exact: TorchModel, half: TorchModel, floor: float) -> _Comparison:
    from sidecar.models.closeness import closeness  # noqa: PLC0415 - imports onnx

    rows = exact.tokenize(probe_inputs(exact.task))
    expected, outputs = _outputs(exact, rows), _outputs(half, rows)
    if not np.isfinite(outputs).all():
        return _Comparison(failure="half precision gives non-finite values")
    quality = closeness(exact.task, expected, outputs)
    below = f"the closeness of half precision is {quality.mean}, below the floor of {floor}"
    return _Comparison(
        failure=None if quality.mean >= floor else below,
        quality=quality,
        speed=take_turns({"none": exact.forward, half.quantization: half.forward}, rows),
    )


def _outputs(model: TorchModel, rows: Sequence[Row]) -> Float32:
    return np.stack([model.forward(row) for row in rows])


def _return_memory() -> None:
    """Return the other precision's memory to the device; torch would cache it for later."""
    import torch  # noqa: PLC0415 - loaded by now

    gc.collect()
    torch.cuda.empty_cache()
