"""Opens the models that a daemon serves, preparing what its cache does not hold yet."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sidecar import __version__
from sidecar.encoder import runtime
from sidecar.host import read_host
from sidecar.models import manifest as manifests
from sidecar.models.apart import prepare_apart
from sidecar.models.description import Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder import describe, stamp
from sidecar.models.foreign import ForeignModel, load_foreign
from sidecar.models.manifest import FORMAT, Manifest
from sidecar.models.model import Model, load
from sidecar.models.precision import Precision
from sidecar.models.prepare import Order
from sidecar.models.probes import probe_inputs
from sidecar.models.source import display_name, locate

log = structlog.get_logger()

_SUBJECT: dict[Task, str] = {"embed": "embeddings", "rerank": "reranker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model to open: what the user called it, what it is for, the precision planned and why."""

    name: str
    task: Task
    precision: Precision
    reason: str


def open_model(wanted: Wanted, cache: Path) -> Model | ForeignModel:
    """Return the model, ready to serve: one forward has been run.

    A source model is prepared into `cache` unless its artifact is there already; an artifact
    is served as it is. An embedder that no graph here computes is served in FP32 by
    sentence-transformers. Raises `ModelError` where the model cannot be had or is not what
    `wanted` says.
    """
    log.info("model.loading", model=wanted.name, task=wanted.task)
    try:
        artifact = artifact_of(wanted, cache)
    except UnknownArchitectureError as error:
        return _open_foreign(wanted, str(error))
    manifest = manifests.read(artifact)
    _check(wanted, manifest)
    _say_selected(wanted, manifest)
    model = load(artifact)
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


def _open_foreign(wanted: Wanted, reason: str) -> ForeignModel:
    if wanted.task != "embed":
        raise ModelError(f"{reason}; only embedding models have a slow path")
    model = load_foreign(locate(wanted.name), display_name(wanted.name), reason)
    model.forward(model.tokenize(probe_inputs("embed")[:1])[0])
    log.warning("model.slow_path", model=model.name, task=wanted.task, reason=reason)
    _say_loaded(model, "none", model.weight_bytes)
    return model


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
        quantization = wanted.precision.quantization
        log.info("model.preparing", model=wanted.name, quantization=quantization)
        name = display_name(wanted.name)
        made = prepare_apart(
            Order(folder=folder, name=name, precision=wanted.precision, output=artifact)
        )
        log.info("model.prepared", model=wanted.name, seconds=made.seconds)
    return artifact


def _check(wanted: Wanted, manifest: Manifest) -> None:
    asked = wanted.precision.quantization
    if manifest.description.task != wanted.task:
        raise ModelError(
            f"{wanted.name} is a model to {manifest.description.task}, not to {wanted.task}"
        )
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


def reason_of(reason: str, manifest: Manifest) -> str:
    """Return `reason` with what was measured: the speed of int8 against FP32."""
    if "int8" not in manifest.speed:
        return reason
    ratio = manifest.speed["none"].mixed_ms / manifest.speed["int8"].mixed_ms
    return f"{reason}; int8 measured {ratio:.2f} times as fast as FP32"


def _say_selected(wanted: Wanted, manifest: Manifest) -> None:
    kind = "no" if manifest.quantization == "none" else manifest.quantization
    log.info(
        "quantization.selected",
        model=wanted.name,
        task=wanted.task,
        quantization=manifest.quantization,
        reason=reason_of(wanted.reason, manifest),
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
        **_closeness(manifest),
        message=f"Applied dynamic {manifest.quantization} quantization{to} (CPU)",
    )


def _say_loaded(model: Model | ForeignModel, quantization: str, weight_bytes: int) -> None:
    log.info(
        "model.loaded",
        model=model.name,
        task=model.task,
        quantization=quantization,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        bytes=weight_bytes,
    )


def _closeness(manifest: Manifest) -> dict[str, Any]:
    quality = manifest.quality
    if quality is None:
        return {}
    if manifest.description.task == "embed":
        return {
            "cosine_mean": quality.mean,
            "cosine_p1": quality.p1,
            "cosine_min": quality.min,
        }
    return {"score_closeness_mean": quality.mean, "rank_agreement": quality.rank_agreement}
