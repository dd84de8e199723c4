"""The models that are configured: found, readable, complete, prepared, and for this host."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sidecar.models import library
from sidecar.models import manifest as manifests
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.files import fingerprint
from sidecar.models.library import Wanted
from sidecar.models.manifest import GRAPH, TOKENIZER, Manifest
from sidecar.models.probes import probe_inputs
from sidecar.models.prompting import prompts_of
from sidecar.models.source import locate
from sidecar.models.tokenizer import Tokenizer
from sidecar.operate.doctor.access import closed_to_others
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

_WEIGHTS = "model.safetensors"
# What is left of FP32's bytes, tables included.
_LEFT = {"none": 1.0, "int8": 0.27, "auto": 0.27, "int4": 0.18, "fp16": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model as it lies on this host.

    `folder` is what its name stands for, `artifact` where it is prepared or will be, `manifest`
    what the artifact says, `source_bytes` the size of its FP32 weights. `problem` says why it
    cannot be served, `slow` why only sentence-transformers can; `changed`, that the source is
    not any more what the artifact was made of; `closed` is what other users cannot read of it,
    `missing` what kinds of texts go without a prompt that the model needs.
    """

    name: str
    folder: Path | None = None
    artifact: Path | None = None
    manifest: Manifest | None = None
    source_bytes: int = 0
    problem: str = ""
    slow: str = ""
    changed: bool = False
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
        own = manifests.is_artifact(folder)
        found = _artifact(wanted, folder, folder) if own else _source(wanted, folder, cache)
        prompts = prompts_of(folder, wanted.name, wanted.task, wanted.prompts)
        return replace(found, closed=closed_to_others(folder), missing=prompts.missing)
    except ModelError as failure:
        return Found(name=wanted.name, problem=str(failure))
    except OSError as failure:
        where = failure.filename or wanted.name
        problem = f"{where}: {failure.strerror}, for user {os.geteuid()}"
        return Found(name=wanted.name, problem=problem)


def check_model(found: Found) -> Iterator[Finding]:
    """Whether a daemon can open the model."""
    name = found.name
    if found.problem:
        yield error("model", found.problem, _advice(found))
        return
    for damage in found.damage:
        advice = "copy it again, or prepare it again with `sidecar prepare`"
        yield error("model", f"{name}: {damage}", advice)
    if found.changed:
        said = f"{name}: {found.folder} is not what {found.artifact} was prepared from"
        yield warning("model", said, "remove that folder: the next start prepares it again")
    if found.slow or found.damage or found.changed:
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


def probe_lengths(found: Found) -> list[int]:
    """Return the tokens of the probes that a prepared model's speed was measured on."""
    assert found.manifest is not None
    assert found.artifact is not None
    description = found.manifest.description
    tokenizer = Tokenizer(found.artifact / TOKENIZER, description.max_tokens)
    return [row.tokens for row in tokenizer.rows(probe_inputs(description.task))]


def _advice(found: Found) -> str:
    if "for user" in found.problem:
        return "let the daemon's user read it: chmod, or a folder outside of /root and /home"
    return "the daemon would exit with 78; name another model, or put this one there"


def _source(wanted: Wanted, folder: Path, cache: Path) -> Found:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    base = Found(name=wanted.name, folder=folder, source_bytes=size)
    if wanted.device == "cuda":
        return _of_task(wanted, folder, base)
    try:
        describe(folder)
    except UnknownArchitectureError as failure:
        return Found(name=wanted.name, folder=folder, source_bytes=size, slow=str(failure))
    artifact = library.cached_path(folder, wanted.precision, cache)
    if manifests.is_artifact(artifact):
        return _artifact(wanted, folder, artifact)
    damage = (*_absent(folder, "config.json", TOKENIZER, _WEIGHTS), *_cut(folder / _WEIGHTS))
    return _of_task(
        wanted,
        folder,
        Found(name=wanted.name, folder=folder, source_bytes=size, artifact=artifact, damage=damage),
    )


def _of_task(wanted: Wanted, folder: Path, found: Found) -> Found:
    if (task := task_of(folder)) != wanted.task:
        raise ModelError(f"{wanted.name} is a model to {task}, not to {wanted.task}")
    return found


def _artifact(wanted: Wanted, folder: Path, artifact: Path) -> Found:
    manifest = manifests.read(artifact)
    library.check(wanted, manifest)
    files = (GRAPH, f"{GRAPH}.data", TOKENIZER)
    return Found(
        name=wanted.name,
        folder=folder,
        artifact=artifact,
        manifest=manifest,
        source_bytes=manifest.bytes_fp32,
        damage=(*_absent(artifact, *files), *_truncated(artifact, manifest)),
        changed=folder != artifact and fingerprint(folder) != manifest.source_sha256,
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
    if not weights.is_file() or not os.access(weights, os.R_OK):
        return
    try:
        with safe_open(weights, framework="numpy"):
            pass
    except SafetensorError as failure:
        yield f"{weights} is damaged: {failure}"
