"""From a model folder to an artifact: read, verify, quantize, compare with FP32, write."""

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.models import manifest as manifests
from sidecar.models.closeness import Judge
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.drafts import draft_of, put, sweep
from sidecar.models.durable import make_folder
from sidecar.models.errors import ModelError
from sidecar.models.exact import Exact, read_exact, weight_bytes
from sidecar.models.intact import record
from sidecar.models.manifest import GRAPH, TOKENIZER, WEIGHTS, Manifest, Speed
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.probes import calibration_inputs
from sidecar.models.quantize import Progress, Quantized, in_fp32, quantized
from sidecar.models.scarcity import is_full, scarcity_told


@dataclass(frozen=True, slots=True)
class _Made:
    """The result to write, and its speed compared with FP32's."""

    chosen: Quantized
    speed: Mapping[str, Speed] = field(default_factory=dict)


def prepare(order: PrepareRequest, progress: Progress = lambda *_: None) -> Manifest:
    """Write the artifact and return its manifest.

    It appears whole or not at all, even after a power loss: it is written beside `output`, synced,
    and then renamed. An existing artifact is replaced.

    Raises `ModelError` for a model that cannot be read, and for an output that cannot be written or
    is anything but an artifact; `TemporaryError` if disk or memory runs out.
    """
    output = order.output
    if output.is_symlink():
        raise ModelError(f"{output} is a symbolic link: name the folder that it points to")
    if output.exists() and not manifests.is_artifact(output):
        raise ModelError(f"{output} exists and is not an artifact: remove it, or name another path")
    with scarcity_told(order.name, output.parent):
        return _prepare(order, progress)


def _prepare(order: PrepareRequest, progress: Progress) -> Manifest:
    with ExitStack() as stack:
        draft = _draft(order.output, stack)
        manifest = _write(order, draft, progress)
        manifests.write(draft, manifest)
        put(draft, order.output)
    return manifest


def _draft(output: Path, stack: ExitStack) -> Path:
    try:
        make_folder(output.parent)
        sweep(output)
        return stack.enter_context(draft_of(output))
    except OSError as error:
        if is_full(error):
            raise
        advice = "choose another folder with SIDECAR_CACHE_DIR or `prepare --output`"
        raise ModelError(
            f"{output.parent} cannot be written ({error.strerror}): {advice}"
        ) from None


def _write(order: PrepareRequest, draft: Path, progress: Progress) -> Manifest:
    started = time.perf_counter()
    with TemporaryDirectory(dir=draft) as scratch:
        exact = read_exact(order.folder, Path(scratch))
        made = _make(order, exact, progress)
        shutil.move(exact.graph.with_name(TOKENIZER), draft / TOKENIZER)
    chosen, stored = made.chosen, weight_bytes(made.chosen.graph)
    _save(chosen.graph, draft)
    return Manifest(
        name=order.name,
        description=exact.description,
        dimensions=exact.encoder.outputs,
        requested=order.precision.quantization,
        quantization=chosen.quantization,
        weight_bits=order.precision.weight_bits,
        kernel=chosen.kernel,
        kept=chosen.kept,
        quality=chosen.quality,
        speed=made.speed,
        verified=exact.verified,
        bytes_fp32=exact.weight_bytes,
        bytes_weights=stored,
        seconds=round(time.perf_counter() - started, 3),
        source_sha256=fingerprint(order.folder, Digests()),
        versions={
            "sidecar": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": runtime.version(),
        },
        files=record(draft),
    )


def _make(order: PrepareRequest, exact: Exact, progress: Progress) -> _Made:
    """Return the model quantized as ordered, or as much of it as passes the gate."""
    encoder, tokenizer = exact.encoder, exact.tokenizer
    if order.precision.quantization == "none":
        return _Made(in_fp32(encoder))
    judge = Judge(exact.graph, tokenizer, exact.description)
    rows = tokenizer.rows(order.texts or calibration_inputs(exact.description.task))
    chosen = quantized(encoder, rows, order.precision, judge.quality_of, progress)
    if chosen.quality is None:  # nothing passed, so there is nothing to time
        return _Made(chosen)
    speed = judge.speed_of(chosen.quantization, chosen.graph)
    if order.precision.quantization == "auto" and _slower(speed):
        chosen = in_fp32(encoder)
    return _Made(chosen, speed)


def _slower(speed: Mapping[str, Speed]) -> bool:
    return speed["int8"].mixed_ms >= speed["none"].mixed_ms


def _save(graph: ModelProto, draft: Path) -> None:
    """Write the graph, and its weights to a separate file that can be mapped into memory.

    The weights are moved: `graph` has none afterwards.
    """
    onnx.save_model(graph, draft / GRAPH, save_as_external_data=True, location=WEIGHTS)
    # onnx makes this file private; give it the mode of the graph beside it.
    (draft / WEIGHTS).chmod((draft / GRAPH).stat().st_mode)
