"""Open the models that a daemon serves, preparing those that its cache does not hold yet."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from sidecar.models import manifest as manifests
from sidecar.models.announcements import (
    log_loaded,
    log_outcome,
    log_proof,
    log_selected,
    reason_of,
)
from sidecar.models.damage import log_damaged, set_aside
from sidecar.models.description import Task
from sidecar.models.digests import Digests
from sidecar.models.errors import DamagedError, ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.pipeline import STATIC, first_of
from sidecar.models.fp16 import load_fp16
from sidecar.models.layout import layout_anew, layout_of
from sidecar.models.manifest import Manifest
from sidecar.models.model import Model, load
from sidecar.models.oracle.ask import has_library
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.prepare_subprocess import prepare_in_subprocess
from sidecar.models.probes import probe_inputs
from sidecar.models.prompting import prompts_of
from sidecar.models.prompts import Setting
from sidecar.models.source import display_name, locate
from sidecar.models.torch_model import TorchModel
from sidecar.models.torch_model import load as load_with_torch
from sidecar.models.torch_pipeline import Source
from sidecar.models.trust import refuse_untrusted_cache

log = structlog.get_logger()

T = TypeVar("T")
# Daemons that share a cache may each replace an artifact while another one reads it.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model to open: the user's name for it, its task, the planned precision and the reason.

    `device`, "cpu" or "cuda", computes it; up to `threads` threads may compute a lone row. Texts
    are truncated at `max_tokens` if that is less than the model's own limit, and not 0. `prompts`
    take precedence over those that an embedding model's folder or artifact states.
    """

    name: str
    task: Task
    precision: Precision
    reason: str
    device: str = "cpu"
    threads: int = 1
    max_tokens: int = 0
    prompts: Setting = field(default_factory=dict)


def open_model(wanted: Wanted, cache: Path) -> Model | TorchModel:
    """Return the model, ready to serve: one forward has been run.

    On the CPU, a source model is prepared into `cache` unless an intact artifact is there; an
    artifact is served as it is, prepacked for this processor in `cache`. A model that no graph here
    computes is served in FP32 by sentence-transformers. On CUDA, it serves every model except
    static ones, in FP16 if that is planned.
    Raises `ModelError` if the model is not available or is not what `wanted` says.
    """
    log.info("model.loading", model=wanted.name, task=wanted.task)
    if wanted.device == "cuda":
        if not _is_static(wanted):
            return _open_with_torch(wanted)
        # A lookup and a mean: no device is faster than a core, and half precision saves nothing.
        wanted = replace(
            wanted, device="cpu", precision=replace(wanted.precision, quantization="none")
        )
    try:
        return with_artifact(wanted, cache, partial(_open_artifact, wanted, cache))
    except UnknownArchitectureError as error:
        return _open_slow_path(wanted, str(error))


def with_artifact(wanted: Wanted, cache: Path, use: Callable[[Path, Path], T]) -> T:
    """Return `use(folder, artifact)` for the model, preparing its artifact first if there is none.

    An artifact in `cache` that turns out to be damaged is set aside and prepared again; so is one
    that another daemon replaces while it is read, which looks the same. Raises `DamagedError` for
    an artifact that the user named, and `ModelError` if the model is not available or cannot be
    prepared.
    """
    folder = locate(wanted.name)
    for _ in range(_ATTEMPTS - 1):
        try:
            return use(folder, _artifact_of(wanted, folder, cache))
        except DamagedError as error:
            if manifests.is_artifact(folder):
                raise
            if aside := set_aside(error.path.parent):
                log_damaged(wanted.name, error, aside)
    return use(folder, _artifact_of(wanted, folder, cache))


def _open_artifact(wanted: Wanted, cache: Path, folder: Path, artifact: Path) -> Model:
    manifest = manifest_of(wanted.name, folder, artifact)
    check(wanted, manifest)
    prompts = prompts_of(artifact, wanted.name, wanted.task, wanted.prompts)
    reason = reason_of(wanted.reason, manifest.speed)
    log_selected(wanted.name, wanted.task, manifest.quantization, reason)
    model = _load(wanted, cache, artifact, manifest)
    model.reason, model.prompting = reason, prompts
    model.forward(model.tokenize(probe_inputs(wanted.task)[:1])[0])
    log_outcome(manifest)
    log_loaded(model, manifest.quantization, manifest.bytes_weights)
    return model


def _load(wanted: Wanted, cache: Path, artifact: Path, manifest: Manifest) -> Model:
    layout = layout_of(artifact, cache, wanted.threads)
    digests = Digests(cache, since_boot=True)
    try:
        return load(artifact, layout, manifest, max_tokens=wanted.max_tokens, digests=digests)
    except DamagedError as error:
        layout = layout_anew(artifact, cache, wanted.threads, error)
        return load(artifact, layout, manifest, max_tokens=wanted.max_tokens, digests=digests)


def manifest_of(name: str, folder: Path, artifact: Path) -> Manifest:
    """Return the manifest of `artifact`, which serves the model in `folder` under `name`.

    An artifact prepared from a folder of another name holds the same model. An artifact that the
    user named keeps the name it was prepared under.
    """
    manifest = manifests.read(artifact)
    return manifest if folder == artifact else replace(manifest, name=display_name(name))


def measure_with_torch(wanted: Wanted) -> TorchModel:
    """Return the model on `wanted.device`, run by sentence-transformers; see its `proof`.

    It computes in FP16 if that is planned and close enough, otherwise in FP32. Raises `ModelError`
    if the model is not available or is not what `wanted` says.
    """
    source, precision = _source(wanted), wanted.precision
    if precision.quantization == "none":
        return load_with_torch(source, device=wanted.device)
    return load_fp16(source, device=wanted.device, floor=precision.floor)


def _open_with_torch(wanted: Wanted) -> TorchModel:
    model = measure_with_torch(wanted)
    model.reason = reason_of(wanted.reason, model.proof.speed if model.proof else {})
    log_selected(wanted.name, wanted.task, model.quantization, model.reason)
    if model.proof:
        log_proof(model, model.proof)
    log_loaded(model, model.quantization, model.weight_bytes)
    return model


def _open_slow_path(wanted: Wanted, reason: str) -> TorchModel:
    source = _source(wanted)
    try:
        model = load_with_torch(source)
    except ModelError as error:
        known = str(error) in reason
        raise ModelError(reason if known else f"{reason}; {error}") from error
    model.reason = reason
    log.warning("model.slow_path", model=model.name, task=wanted.task, reason=reason)
    log_loaded(model, model.quantization, model.weight_bytes)
    return model


def _is_static(wanted: Wanted) -> bool:
    folder = locate(wanted.name)
    return not manifests.is_artifact(folder) and first_of(folder).kind == STATIC


def _source(wanted: Wanted) -> Source:
    folder = locate(wanted.name)
    if manifests.is_artifact(folder):
        raise ModelError(
            f"{wanted.name} is an artifact, which runs on a CPU: set SIDECAR_DEVICE=cpu, or name "
            "the model that it was prepared from"
        )
    _check_task(wanted, task_of(folder))
    prompts = prompts_of(folder, wanted.name, wanted.task, wanted.prompts)
    return Source(
        folder, display_name(wanted.name), wanted.task, wanted.max_tokens, prompts=prompts
    )


def _artifact_of(wanted: Wanted, folder: Path, cache: Path) -> Path:
    if manifests.is_artifact(folder):
        return folder
    describe(folder)  # report errors and unsupported models before preparing
    prompts_of(folder, wanted.name, wanted.task, wanted.prompts)
    refuse_untrusted_cache(cache)
    artifact = cached_path(folder, wanted.precision, cache)
    if not os.path.lexists(artifact) or _can_be_verified(artifact):
        _prepare(wanted, folder, artifact)
    return artifact


def _can_be_verified(artifact: Path) -> bool:
    """Whether an artifact is unverified, and the library to verify it with is now installed."""
    return manifests.read(artifact).verified is None and has_library()


def _prepare(wanted: Wanted, folder: Path, artifact: Path) -> None:
    precision = wanted.precision
    log.info(
        "model.preparing",
        model=wanted.name,
        task=wanted.task,
        quantization=precision.quantization,
    )
    name = display_name(wanted.name)
    made = prepare_in_subprocess(
        PrepareRequest(folder=folder, name=name, precision=precision, output=artifact)
    )
    log.info("model.prepared", model=wanted.name, task=wanted.task, seconds=made.seconds)


def check(wanted: Wanted, manifest: Manifest) -> None:
    """Raise `ModelError` if an artifact is not what `wanted` says, or not for this host."""
    asked = wanted.precision.quantization
    _check_task(wanted, manifest.description.task)
    # An artifact that was requested in int8 and fell back to FP32 still counts as int8.
    if asked not in {"auto", manifest.requested, manifest.quantization}:
        raise ModelError(
            f"{wanted.name} is an artifact in {manifest.quantization}, but {asked} is configured: "
            "set USE_QUANTIZATION and QUANTIZATION_CONFIG to match it"
        )
    if manifest.quantization != "none" and manifest.weight_bits > wanted.precision.weight_bits:
        raise ModelError(
            f"{wanted.name} has {manifest.weight_bits}-bit weights, which this processor would "
            "multiply wrongly: prepare it on this host, or with `sidecar prepare --portable`"
        )


def _check_task(wanted: Wanted, task: Task) -> None:
    if task != wanted.task:
        raise ModelError(f"{wanted.name} is a model to {task}, not to {wanted.task}")
