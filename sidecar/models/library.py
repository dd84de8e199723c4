"""Opens the models that a daemon serves, preparing what its cache does not hold yet."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.host import read_host
from sidecar.memory import read_memory
from sidecar.models import manifest as manifests
from sidecar.models.apart import prepare_apart
from sidecar.models.description import Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder import describe, stamp, task_of
from sidecar.models.half import load_in_half
from sidecar.models.layout import layout_of
from sidecar.models.manifest import FORMAT, Manifest, Quality, Speed
from sidecar.models.model import Model, load
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.probes import probe_inputs
from sidecar.models.source import display_name, locate
from sidecar.models.torch_model import Proof, Source, TorchModel
from sidecar.models.torch_model import load as load_with_torch

log = structlog.get_logger()

_SUBJECT: dict[Task, str] = {"embed": "embeddings", "rerank": "reranker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model to open: what the user called it, what it is for, the precision planned and why.

    `device`, "cpu" or "cuda", is what computes it; `threads` may compute a row that is alone.
    """

    name: str
    task: Task
    precision: Precision
    reason: str
    device: str = "cpu"
    threads: int = 1


def open_model(wanted: Wanted, cache: Path) -> Model | TorchModel:
    """Return the model, ready to serve: one forward has been run.

    On the CPU a source model is prepared into `cache` unless its artifact is there already; an
    artifact is served as it is, laid out for this processor in `cache`. What no graph here
    computes is served in FP32 by sentence-transformers, and so is everything on CUDA, there in
    FP16 where that is planned.
    Raises `ModelError` where the model cannot be had or is not what `wanted` says.
    """
    log.info("model.loading", model=wanted.name, task=wanted.task)
    if wanted.device == "cuda":
        return _open_with_torch(wanted)
    try:
        artifact = artifact_of(wanted, cache)
    except UnknownArchitectureError as error:
        return _open_slow_path(wanted, str(error))
    manifest = manifests.read(artifact)
    check(wanted, manifest)
    reason = reason_of(wanted.reason, manifest.speed)
    _say_selected(wanted, manifest.quantization, reason)
    model = load(artifact, layout_of(artifact, cache, wanted.threads))
    model.reason = reason
    model.forward(model.tokenize(probe_inputs(wanted.task)[:1])[0])
    _say_outcome(manifest)
    _say_loaded(model, manifest.quantization, manifest.bytes_weights)
    return model


def cached_path(folder: Path, precision: Precision, cache: Path) -> Path:
    """Return where the artifact of the model in `folder` lies, or will lie, in `cache`.

    The name changes with the folder's files, the precision, the processor that its speed was
    measured on, and the versions that decide what is written.
    """
    host = read_host()
    facts = (
        stamp(folder),
        repr(precision),
        f"{host.cpu_model} {sorted(host.isa)}",
        f"{FORMAT} {__version__} {runtime.version()}",
    )
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return cache / f"{folder.name}-{precision.quantization}-{key}"


def measure_with_torch(wanted: Wanted) -> TorchModel:
    """Return the model on `wanted.device`, by sentence-transformers; its `proof` tells more.

    Where FP16 is planned, that is what it computes in, or FP32 where FP16 is not close enough.
    Raises `ModelError` where the model cannot be had or is not what `wanted` says.
    """
    source, precision = _source(wanted), wanted.precision
    if precision.quantization == "none":
        return load_with_torch(source, device=wanted.device)
    return load_in_half(source, device=wanted.device, floor=precision.floor)


def _open_with_torch(wanted: Wanted) -> TorchModel:
    model = measure_with_torch(wanted)
    model.reason = reason_of(wanted.reason, model.proof.speed if model.proof else {})
    _say_selected(wanted, model.quantization, model.reason)
    if model.proof:
        _say_proof(model, model.proof)
    _say_loaded(model, model.quantization, model.weight_bytes)
    return model


def _open_slow_path(wanted: Wanted, reason: str) -> TorchModel:
    try:
        model = load_with_torch(_source(wanted))
    except ModelError as error:
        raise ModelError(f"{reason}; {error}") from error
    model.reason = reason
    log.warning("model.slow_path", model=model.name, task=wanted.task, reason=reason)
    _say_loaded(model, model.quantization, model.weight_bytes)
    return model


def _source(wanted: Wanted) -> Source:
    folder = locate(wanted.name)
    if manifests.is_artifact(folder):
        raise ModelError(
            f"{wanted.name} is an artifact, which a CPU computes: set SIDECAR_DEVICE=cpu, or name "
            "the model that it was prepared from"
        )
    _check_task(wanted, task_of(folder))
    return Source(folder, display_name(wanted.name), wanted.task)


def artifact_of(wanted: Wanted, cache: Path) -> Path:
    """Return the folder of the model's artifact, prepared into `cache` where it is not yet.

    Raises `ModelError` where the model cannot be had or prepared.
    """
    folder = locate(wanted.name)
    if manifests.is_artifact(folder):
        return folder
    describe(folder)  # what no graph here computes is known before a process is started for it
    artifact = cached_path(folder, wanted.precision, cache)
    if not manifests.is_artifact(artifact):
        _prepare(wanted, folder, artifact)
    return artifact


def _prepare(wanted: Wanted, folder: Path, artifact: Path) -> None:
    precision = wanted.precision
    log.info(
        "model.preparing",
        model=wanted.name,
        task=wanted.task,
        quantization=precision.quantization,
    )
    name = display_name(wanted.name)
    made = prepare_apart(Order(folder=folder, name=name, precision=precision, output=artifact))
    log.info("model.prepared", model=wanted.name, task=wanted.task, seconds=made.seconds)


def check(wanted: Wanted, manifest: Manifest) -> None:
    """Raise `ModelError` where an artifact is not what `wanted` says, or not for this host."""
    asked = wanted.precision.quantization
    _check_task(wanted, manifest.description.task)
    # An artifact that was asked to be int8 and fell back to FP32 is still the int8 one.
    if asked not in {"auto", manifest.requested, manifest.quantization}:
        raise ModelError(
            f"{wanted.name} is an artifact in {manifest.quantization}, but {asked} is configured: "
            "set USE_QUANTIZATION and QUANTIZATION_CONFIG to what it is"
        )
    if manifest.quantization != "none" and manifest.weight_bits > wanted.precision.weight_bits:
        raise ModelError(
            f"{wanted.name} has {manifest.weight_bits}-bit weights, which this processor would "
            "multiply wrongly: prepare it on this host, or with `sidecar prepare --portable`"
        )


def _check_task(wanted: Wanted, task: Task) -> None:
    if task != wanted.task:
        raise ModelError(f"{wanted.name} is a model to {task}, not to {wanted.task}")


def reason_of(reason: str, speed: Mapping[str, Speed]) -> str:
    """Return `reason` with what was measured: the speed of what is not FP32 against FP32's."""
    measured = [
        f"{name} measured {speed['none'].mixed_ms / own.mixed_ms:.2f} times as fast as FP32"
        for name, own in speed.items()
        if name != "none"
    ]
    return "; ".join([reason, *measured])


def _say_selected(wanted: Wanted, quantization: str, reason: str) -> None:
    kind = "no" if quantization == "none" else quantization
    log.info(
        "quantization.selected",
        model=wanted.name,
        task=wanted.task,
        quantization=quantization,
        reason=reason,
        message=f"Using {kind} quantization for {_SUBJECT[wanted.task]}",
    )


def _say_outcome(manifest: Manifest) -> None:
    if manifest.kept:
        log.warning(
            "quantization.fell_back",
            model=manifest.name,
            task=manifest.description.task,
            quantization=manifest.quantization,
            layers=list(manifest.kept),
            reason=f"{manifest.requested} throughout stays under the floor of closeness to FP32",
        )
    if manifest.quantization != "none":
        _say_applied(manifest)


def _say_applied(manifest: Manifest) -> None:
    task = manifest.description.task
    to = " to reranker" if task == "rerank" else ""
    log.info(
        "quantization.applied",
        model=manifest.name,
        task=task,
        quantization=manifest.quantization,
        kernel=manifest.kernel,
        bytes_before=manifest.bytes_fp32,
        bytes_after=manifest.bytes_weights,
        seconds=manifest.seconds,
        **_closeness(task, manifest.quality),
        message=f"Applied dynamic {manifest.quantization} quantization{to} (CPU)",
    )


def _say_proof(model: TorchModel, proof: Proof) -> None:
    if proof.fell_back:
        log.warning(
            "quantization.fell_back",
            model=model.name,
            task=model.task,
            quantization=model.quantization,
            reason=proof.fell_back,
        )
        return
    to = " to reranker" if model.task == "rerank" else ""
    log.info(
        "quantization.applied",
        model=model.name,
        task=model.task,
        quantization=model.quantization,
        kernel=model.kernel,
        bytes_before=proof.bytes_fp32,
        bytes_after=model.weight_bytes,
        seconds=proof.seconds,
        **_closeness(model.task, proof.quality),
        message=f"Applied {model.quantization.upper()}{to} ({model.device.upper()})",
    )


def _say_loaded(model: Model | TorchModel, quantization: str, weight_bytes: int) -> None:
    log.info(
        "model.loaded",
        model=model.name,
        task=model.task,
        quantization=quantization,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        bytes=weight_bytes,
        lone_threads=model.lone_threads,
        pss_bytes=read_memory()["pss_bytes"],
    )


def _closeness(task: Task, quality: Quality | None) -> dict[str, Any]:
    if quality is None:
        return {}
    if task == "embed":
        return {
            "cosine_mean": quality.mean,
            "cosine_p1": quality.p1,
            "cosine_min": quality.min,
        }
    return {"score_closeness_mean": quality.mean, "rank_agreement": quality.rank_agreement}
