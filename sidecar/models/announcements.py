"""Log events about loading, quantizing and verifying a model."""

from collections.abc import Mapping
from typing import Any

import structlog

from sidecar.memory import read_memory
from sidecar.models.description import Task
from sidecar.models.manifest import Manifest, Quality, Speed
from sidecar.models.model import Model
from sidecar.models.prompting import warn_of_missing
from sidecar.models.torch_model import Proof, TorchModel
from sidecar.models.verification import Verification

log = structlog.get_logger()

_SUBJECT: dict[Task, str] = {"embed": "embeddings", "rerank": "reranker"}


def reason_of(reason: str, speed: Mapping[str, Speed]) -> str:
    """Return `reason` followed by the measured speed of each quantization relative to FP32."""
    measured = [
        f"{name} measured {speed['none'].mixed_ms / own.mixed_ms:.2f} times as fast as FP32"
        for name, own in speed.items()
        if name != "none"
    ]
    return "; ".join([reason, *measured])


def log_selected(name: str, task: Task, quantization: str, reason: str) -> None:
    """Log the quantization that a model will be served in, and why."""
    kind = "no" if quantization == "none" else quantization
    log.info(
        "quantization.selected",
        model=name,
        task=task,
        quantization=quantization,
        reason=reason,
        message=f"Using {kind} quantization for {_SUBJECT[task]}",
    )


def log_outcome(manifest: Manifest) -> None:
    """Log an artifact's quantization, with a warning if any of it fell back to FP32."""
    if manifest.kept:
        tried = "int8" if manifest.requested == "auto" else manifest.requested
        log.warning(
            "quantization.fell_back",
            model=manifest.name,
            task=manifest.description.task,
            quantization=manifest.quantization,
            layers=list(manifest.kept),
            reason=f"{tried} for every layer is below the floor of closeness to FP32",
        )
    if manifest.quantization != "none":
        _log_applied(manifest)


def _log_applied(manifest: Manifest) -> None:
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


def log_proof(model: TorchModel, proof: Proof) -> None:
    """Log the same for a model that torch computes in half precision."""
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


def log_loaded(model: Model | TorchModel, quantization: str, weight_bytes: int) -> None:
    """Log that a model is loaded; warn if it is unverified or lacks prompts that it needs."""
    log.info(
        "model.loaded",
        model=model.name,
        task=model.task,
        quantization=quantization,
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
        model_max_tokens=model.model_max_tokens,
        bytes=weight_bytes,
        lone_threads=model.intra_op_threads,
        pss_bytes=read_memory()["pss_bytes"],
        **_verification(model.verified),
    )
    warn_of_missing(model.name, model.prompting)
    if model.verified is None:
        log.warning(
            "model.unverified",
            model=model.name,
            task=model.task,
            advice="prepare it on a host with the extra `server` installed (docs/models.md)",
        )


def _verification(verified: Verification | None) -> dict[str, Any]:
    if verified is None:
        return {"verified": False}
    return {
        "verified": True,
        "verified_texts": verified.texts,
        "verified_cosine_min": verified.cosine_min,
        "verified_score_error_max": verified.score_error_max,
        "verified_versions": dict(verified.versions),
    }


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
