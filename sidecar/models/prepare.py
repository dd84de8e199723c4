"""From a model folder to an artifact: read, quantize, prove against FP32, write."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto, TensorProto

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.encoder.architecture import Encoder
from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe
from sidecar.models import manifest as manifests
from sidecar.models.drafts import draft_of, sweep
from sidecar.models.errors import ModelError
from sidecar.models.folder import describe, fingerprint, read_encoder
from sidecar.models.manifest import GRAPH, TOKENIZER, WEIGHTS, Manifest, Speed
from sidecar.models.order import Order
from sidecar.models.probes import calibration_inputs
from sidecar.models.quantize import Progress, Quantized, in_fp32, quantized
from sidecar.models.scarcity import is_full, scarcity_told
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.verify import Judge


@dataclass(frozen=True, slots=True)
class _Made:
    """What is to be written, the bytes of its weights in FP32, and the speed of both."""

    chosen: Quantized
    bytes_fp32: int
    speed: Mapping[str, Speed] = field(default_factory=dict)


def prepare(order: Order, progress: Progress = lambda *_: None) -> Manifest:
    """Write the artifact and return its manifest.

    It appears whole or not at all: it is written beside `output` and renamed. One that is
    there already is replaced.

    Raises `ModelError` for a model that cannot be read, and for an output that cannot be
    written or is something else than an artifact; `TemporaryError` where disk or memory ran out.
    """
    output = order.output
    if output.exists() and not manifests.is_artifact(output):
        raise ModelError(f"{output} exists and is not an artifact: it is left alone")
    with scarcity_told(order.name, output.parent):
        return _prepare(order, progress)


def _prepare(order: Order, progress: Progress) -> Manifest:
    output = order.output
    draft = _draft(output)
    try:
        manifest = _write(order, draft, progress)
        manifests.write(draft, manifest)
        shutil.rmtree(output, ignore_errors=True)
        draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _draft(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        sweep(output)
        draft = draft_of(output)
        draft.mkdir()  # no mkdtemp: it has the modes that the umask grants to the service's user
    except OSError as error:
        if is_full(error):
            raise
        advice = "name another folder with SIDECAR_CACHE_DIR, or `prepare --output`"
        raise ModelError(
            f"{output.parent} cannot be written ({error.strerror}): {advice}"
        ) from None
    return draft


def _write(order: Order, draft: Path, progress: Progress) -> Manifest:
    started = time.perf_counter()
    description = describe(order.folder)
    encoder = read_encoder(order.folder, description)
    _copy_tokenizer(order.folder, draft)
    tokenizer = Tokenizer(draft / TOKENIZER, description.max_tokens)
    made = _make(order, encoder, tokenizer, draft, progress)
    chosen, weight_bytes = made.chosen, _weight_bytes(made.chosen.graph)
    _save(chosen.graph, draft)
    return Manifest(
        name=order.name,
        description=description,
        dimensions=encoder.outputs,
        requested=order.precision.quantization,
        quantization=chosen.quantization,
        weight_bits=order.precision.weight_bits,
        kernel=chosen.kernel,
        kept=chosen.kept,
        quality=chosen.quality,
        speed=made.speed,
        bytes_fp32=made.bytes_fp32,
        bytes_weights=weight_bytes,
        seconds=round(time.perf_counter() - started, 3),
        source_sha256=fingerprint(order.folder),
        versions={
            "sidecar": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": runtime.version(),
        },
    )


def _make(
    order: Order, encoder: Encoder, tokenizer: Tokenizer, draft: Path, progress: Progress
) -> _Made:
    """Return the model as `order` wants it, or as much of that as passes the gate."""
    if order.precision.quantization == "none":
        fp32 = in_fp32(encoder)
        return _Made(fp32, _weight_bytes(fp32.graph))
    description = describe(order.folder)
    with TemporaryDirectory(dir=draft) as folder:
        reference, bytes_fp32 = _reference(encoder, Path(folder))
        judge = Judge(reference, tokenizer, description)
        rows = tokenizer.rows(order.texts or calibration_inputs(description.task))
        chosen = quantized(encoder, rows, order.precision, judge.quality_of, progress)
        if chosen.quality is None:  # nothing passed, and there is nothing to time
            return _Made(chosen, bytes_fp32)
        speed = judge.speed_of(chosen.quantization, chosen.graph)
    if order.precision.quantization == "auto" and _slower(speed):
        chosen = in_fp32(encoder)
    return _Made(chosen, bytes_fp32, speed)


def _reference(encoder: Encoder, folder: Path) -> tuple[Path, int]:
    """Write the model in FP32, to compare with, and return its path and its weights' bytes.

    From file to file: it is never in memory as a whole but while it computes.
    """
    with (folder / WEIGHTS).open("wb") as weights:
        graph = build(encoder, Float32Recipe(), weights)
    (folder / GRAPH).write_bytes(graph.SerializeToString())
    return folder / GRAPH, _weight_bytes(graph)


def _slower(speed: Mapping[str, Speed]) -> bool:
    return speed["int8"].mixed_ms >= speed["none"].mixed_ms


def _copy_tokenizer(folder: Path, draft: Path) -> None:
    source = folder / TOKENIZER
    if not source.is_file():
        raise ModelError(f"{folder} has no {TOKENIZER} (slow tokenizers are not read)")
    shutil.copyfile(source, draft / TOKENIZER)


def _save(graph: ModelProto, draft: Path) -> None:
    """Write the graph, its weights in a file of their own that can be mapped into memory.

    They move there: `graph` has none afterwards.
    """
    onnx.save_model(graph, draft / GRAPH, save_as_external_data=True, location=WEIGHTS)
    # onnx makes this file private; it is as public as the graph beside it.
    (draft / WEIGHTS).chmod((draft / GRAPH).stat().st_mode)


def _weight_bytes(graph: ModelProto) -> int:
    return sum(map(_bytes_of, graph.graph.initializer))


def _bytes_of(tensor: TensorProto) -> int:
    stored = {entry.key: entry.value for entry in tensor.external_data}
    return int(stored["length"]) if stored else len(tensor.raw_data)
