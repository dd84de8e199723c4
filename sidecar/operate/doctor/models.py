"""The models that are configured: found, readable, complete, prepared, and for this host."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.models import library
from sidecar.models import manifest as manifests
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.config import transformer_of
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.files import model_files, reading
from sidecar.models.folder.formats import Safetensors
from sidecar.models.folder.weights import weight_files
from sidecar.models.library import Wanted
from sidecar.models.manifest import GRAPH, TOKENIZER, Manifest
from sidecar.models.place import cached_path
from sidecar.models.probes import probe_inputs
from sidecar.models.prompting import prompts_of
from sidecar.models.source import locate
from sidecar.models.tokenizer import Tokenizer
from sidecar.operate.doctor.access import closed_to_others
from sidecar.operate.doctor.finding import Finding, error, note, ok

# What is left of FP32's bytes, tables included.
_LEFT = {"none": 1.0, "int8": 0.27, "auto": 0.27, "int4": 0.18, "fp16": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model as it lies on this host.

    `folder` is what its name stands for, `artifact` where it is prepared or will be, `manifest`
    what the artifact says, `source_bytes` the size of its FP32 weights. `problem` says why it
    cannot be served, `slow` why only sentence-transformers can; `closed` is what other users
    cannot read of it, `missing` what kinds of texts go without a prompt that the model needs.
    """

    name: str
    folder: Path | None = None
    artifact: Path | None = None
    manifest: Manifest | None = None
    source_bytes: int = 0
    problem: str = ""
    slow: str = ""
    damage: tuple[str, ...] = ()
    closed: Path | None = None
    missing: tuple[str, ...] = ()

    def weights(self, quantization: str) -> int:
        """Return what its weights take, or will take in `quantization`, in bytes."""
        if self.manifest:
            return self.manifest.bytes_weights
        return round(self.source_bytes * (1.0 if self.slow else _LEFT[quantization]))

    @property
    def unprepared_bytes(self) -> int:
        """What of its source's weights is still to be prepared, in bytes."""
        done = self.manifest or self.problem or self.slow
        return 0 if done else self.source_bytes


def read_model(wanted: Wanted, cache: Path) -> Found:
    """Return what there is of a model. Nothing is downloaded, prepared or loaded."""
    try:
        folder = locate(wanted.name, local=True)
        with reading(folder):
            own = manifests.is_artifact(folder)
            found = _artifact(wanted, folder, folder) if own else _source(wanted, folder, cache)
            prompts = prompts_of(folder, wanted.name, wanted.task, wanted.prompts)
            return replace(found, closed=closed_to_others(folder), missing=prompts.missing)
    except ModelError as failure:
        return Found(name=wanted.name, problem=str(failure))


def check_model(found: Found) -> Iterator[Finding]:
    """Whether a daemon can open the model."""
    name = found.name
    if found.problem:
        yield error("model", found.problem, _advice(found))
        return
    for damage in found.damage:
        advice = "copy it again, or prepare it again with `sidecar prepare`"
        yield error("model", f"{name}: {damage}", advice)
    if found.slow or found.damage:
        return
    if found.manifest is None:
        yield note(
            "model",
            f"{name} is not prepared yet: the first start does it",
            "`sidecar prepare` does it beforehand, here or on another host",
        )
        return
    size = found.manifest.bytes_weights / 1e6
    yield ok("model", f"{name}: {found.artifact}, complete, {size:,.1f} MB of weights")


def check_limit(found: Found, cap: int) -> Iterator[Finding]:
    """Whether SIDECAR_MAX_TOKENS, `cap`, has the daemon cut texts that the model would take."""
    if found.manifest is None or not cap:
        return
    own = found.manifest.description.max_tokens
    if cap < own:
        said = f"SIDECAR_MAX_TOKENS cuts {found.name}'s texts at {cap} tokens; it takes {own}"
        yield note("model", said, "unset it if the ends of long texts matter more than memory")
    else:
        said = f"SIDECAR_MAX_TOKENS={cap} changes nothing: {found.name} takes {own} tokens"
        yield note("model", said, "lower it, or remove it")


def probe_lengths(found: Found) -> list[int]:
    """Return the tokens of the probes that a prepared model's speed was measured on."""
    assert found.manifest is not None
    assert found.artifact is not None
    description = found.manifest.description
    tokenizer = Tokenizer(found.artifact / TOKENIZER, description.max_tokens)
    return [row.tokens for row in tokenizer.rows(probe_inputs(description.task))]


def _advice(found: Found) -> str:
    if "Permission denied" in found.problem:
        return "let the daemon's user read it: chmod, or a folder outside of /root and /home"
    return "the daemon would exit with 78; name another model, or put this one there"


def _source(wanted: Wanted, folder: Path, cache: Path) -> Found:
    size = _weight_bytes(folder)
    base = Found(name=wanted.name, folder=folder, source_bytes=size)
    if wanted.device == "cuda":
        return _of_task(wanted, folder, base)
    try:
        describe(folder)
    except UnknownArchitectureError as failure:
        return Found(name=wanted.name, folder=folder, source_bytes=size, slow=str(failure))
    artifact = cached_path(folder, wanted.precision, cache, remember=False)
    if manifests.is_artifact(artifact):
        return _artifact(wanted, folder, artifact)
    weights = weight_files(transformer_of(folder))
    damage = tuple(text for path in weights for text in _cut(path))
    return _of_task(
        wanted,
        folder,
        Found(name=wanted.name, folder=folder, source_bytes=size, artifact=artifact, damage=damage),
    )


def _weight_bytes(folder: Path) -> int:
    """Return the bytes of the weights in one format, the one that is read where both are there."""
    files = model_files(folder)
    sizes = {
        suffix: sum(path.stat().st_size for path in files if path.suffix == suffix)
        for suffix in (".safetensors", ".bin")
    }
    return sizes[".safetensors"] or sizes[".bin"]


def _of_task(wanted: Wanted, folder: Path, found: Found) -> Found:
    if (task := task_of(folder)) != wanted.task:
        raise ModelError(f"{wanted.name} is a model to {task}, not to {wanted.task}")
    return found


def _artifact(wanted: Wanted, folder: Path, artifact: Path) -> Found:
    manifest = library.manifest_of(wanted.name, folder, artifact)
    library.check(wanted, manifest)
    files = (GRAPH, f"{GRAPH}.data", TOKENIZER)
    return Found(
        name=wanted.name,
        folder=folder,
        artifact=artifact,
        manifest=manifest,
        source_bytes=manifest.bytes_fp32,
        damage=(*_absent(artifact, *files), *_truncated(artifact, manifest)),
    )


def _absent(folder: Path, *names: str) -> Iterator[str]:
    for name in names:
        if not (folder / name).is_file():
            yield f"{folder / name} is missing"
        elif not os.access(folder / name, os.R_OK):
            yield f"{folder / name} cannot be read by user {os.geteuid()}"


def _truncated(artifact: Path, manifest: Manifest) -> Iterator[str]:
    sizes = [path.stat().st_size for path in artifact.glob(f"{GRAPH}*")]
    if sum(sizes) < manifest.bytes_weights:
        wanted = manifest.bytes_weights
        yield f"{artifact} holds {sum(sizes):,} bytes of graph and weights, not {wanted:,}"


def _cut(weights: Path) -> Iterator[str]:
    if weights.suffix != ".safetensors":  # torch would have to be imported
        return
    try:
        Safetensors(weights)
    except ModelError as failure:
        yield str(failure)
