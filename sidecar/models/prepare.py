"""From a model folder to an artifact: read, quantize, prove against FP32, write."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe, Int8Recipe, Recipe
from sidecar.encoder.runtime import Session
from sidecar.models import manifest as manifests
from sidecar.models.description import Description
from sidecar.models.errors import ModelError
from sidecar.models.folder import describe, fingerprint, read_encoder
from sidecar.models.manifest import Manifest, Quality
from sidecar.models.model import GRAPH, TOKENIZER, forward
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.verify import measure

RECIPES: Mapping[str, Recipe] = {"none": Float32Recipe(), "int8": Int8Recipe()}


def prepare(folder: Path, name: str, quantization: str, output: Path) -> Manifest:
    """Write the artifact of the model in `folder` to `output` and return its manifest.

    `quantization` is a key of `RECIPES`. The artifact appears whole or not at all: it is
    written beside `output` and renamed. One that is there already is replaced.

    Raises `ModelError` for a model that cannot be read, and for an output that cannot be
    written or is something else than an artifact.
    """
    if output.exists() and not manifests.is_artifact(output):
        raise ModelError(f"{output} exists and is not an artifact: it is left alone")
    draft = _draft(output)
    try:
        manifest = _write(folder, name, quantization, draft)
        manifests.write(draft, manifest)
        shutil.rmtree(output, ignore_errors=True)
        draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _draft(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # Named after the process: two that prepare the same model do not meet, and unlike a
        # mkdtemp the folder has the modes that the umask grants to the service's user.
        draft = output.with_name(f".{output.name}.{os.getpid()}")
        draft.mkdir()
    except OSError as error:
        raise ModelError(f"{output.parent} cannot be written: {error.strerror}") from None
    return draft


def _write(folder: Path, name: str, quantization: str, draft: Path) -> Manifest:
    started = time.perf_counter()
    description = describe(folder)
    encoder = read_encoder(folder, description)
    recipe = RECIPES[quantization]
    _copy_tokenizer(folder, draft)
    reference = build(encoder, RECIPES["none"])
    graph = build(encoder, recipe)
    bytes_fp32, bytes_weights = _weight_bytes(reference), _weight_bytes(graph)
    _save(graph, draft)
    return Manifest(
        name=name,
        description=description,
        dimensions=encoder.outputs,
        quantization=quantization,
        kernel=recipe.kernel,
        quality=None if quantization == "none" else _prove(reference, draft, description),
        bytes_fp32=bytes_fp32,
        bytes_weights=bytes_weights,
        seconds=round(time.perf_counter() - started, 3),
        source_sha256=fingerprint(folder),
        versions={
            "sidecar": __version__,
            "onnx": onnx.__version__,
            "onnxruntime": runtime.version(),
        },
    )


def _copy_tokenizer(folder: Path, draft: Path) -> None:
    source = folder / TOKENIZER
    if not source.is_file():
        raise ModelError(f"{folder} has no {TOKENIZER} (slow tokenizers are not read)")
    shutil.copyfile(source, draft / TOKENIZER)


def _save(graph: ModelProto, draft: Path) -> None:
    """Write the graph, its weights in a file of their own that can be mapped into memory."""
    weights = f"{GRAPH}.data"
    onnx.save_model(graph, draft / GRAPH, save_as_external_data=True, location=weights)
    # onnx makes this file private; it is as public as the graph beside it.
    (draft / weights).chmod((draft / GRAPH).stat().st_mode)


def _prove(reference: ModelProto, draft: Path, description: Description) -> Quality:
    """Measure what was written, as it will be served, against FP32."""
    exact = Session(reference.SerializeToString())
    candidate = Session(draft / GRAPH)
    tokenizer = Tokenizer(draft / TOKENIZER, description.max_tokens)
    return measure(
        description.task,
        tokenizer.rows,
        lambda row: forward(exact, description.activation, row),
        lambda row: forward(candidate, description.activation, row),
    )


def _weight_bytes(graph: ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
