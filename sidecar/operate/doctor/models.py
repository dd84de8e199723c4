"""The configured models: whether they are found, readable, whole, prepared, and for this host."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sidecar.models import library
from sidecar.models import manifest as manifests
from sidecar.models.errors import DamagedError, ModelError, UnknownArchitectureError
from sidecar.models.folder.config import transformer_of
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.files import model_files, reading
from sidecar.models.folder.formats import Safetensors
from sidecar.models.folder.weights import weight_files
from sidecar.models.intact import check as check_files
from sidecar.models.library import Wanted
from sidecar.models.manifest import TOKENIZER, Manifest
from sidecar.models.place import cached_path
from sidecar.models.probes import probe_inputs
from sidecar.models.prompting import prompts_of
from sidecar.models.source import locate
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.trust import Owner, refuse_untrusted
from sidecar.operate.doctor.access import closed_to_others
from sidecar.operate.doctor.finding import Finding, error, note, ok, warning

# Sizes relative to FP32, embedding tables included.
_LEFT = {"none": 1.0, "int8": 0.27, "auto": 0.27, "int4": 0.18, "fp16": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model as found on this host.

    `folder` is what its name resolves to, `artifact` where it is or will be prepared, `manifest` is
    the artifact's, `source_bytes` the size of its FP32 weights. `problem` says why it cannot be
    served, `slow` why only sentence-transformers can serve it; `closed` is the part that other
    users cannot read, `missing` the kinds of texts that lack a prompt the model needs. `damage`
    describes damaged files, `spoilt` those in the cache, which are prepared again; `refusals` say
    why a daemon would refuse files that others could change.
    """

    name: str
    folder: Path | None = None
    artifact: Path | None = None
    manifest: Manifest | None = None
    source_bytes: int = 0
    problem: str = ""
    slow: str = ""
    damage: tuple[str, ...] = ()
    spoilt: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    closed: Path | None = None
    missing: tuple[str, ...] = ()

    def weights(self, quantization: str) -> int:
        """Return the bytes of its weights, as they are or as they will be in `quantization`."""
        if self.manifest:
            return self.manifest.bytes_weights
        return round(self.source_bytes * (1.0 if self.slow else _LEFT[quantization]))

    @property
    def unprepared_bytes(self) -> int:
        """The bytes of its source's weights that are still to be prepared."""
        done = self.manifest or self.problem or self.slow
        return 0 if done else self.source_bytes


def read_model(wanted: Wanted, cache: Path) -> Found:
    """Return the facts about a model. Downloads, prepares and loads nothing."""
    try:
        folder = locate(wanted.name, local=True)
        with reading(folder):
            own, owner = manifests.is_artifact(folder), _owner(cache)
            found = (
                _artifact(wanted, folder, owner) if own else _source(wanted, folder, cache, owner)
            )
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
    for refusal in found.refusals:
        advice = "until this is fixed, the daemon exits with 78"
        yield error("model", f"{name}: {refusal}", advice)
    for damage in found.damage:
        advice = "copy it again, or prepare it again with `sidecar prepare`"
        yield error("model", f"{name}: {damage}", advice)
    for damage in found.spoilt:
        advice = "the next start or reload sets it aside and prepares the model again"
        yield warning("model", f"{name}: {damage}", advice)
    if found.slow or found.damage or found.spoilt or found.refusals:
        return
    if found.manifest is None:
        yield note(
            "model",
            f"{name} is not prepared yet: the first start will do it",
            "`sidecar prepare` does it beforehand, here or on another host",
        )
        return
    size = found.manifest.bytes_weights / 1e6
    yield ok("model", f"{name}: {found.artifact}, complete, {size:,.1f} MB of weights")


def check_limit(found: Found, cap: int) -> Iterator[Finding]:
    """Whether SIDECAR_MAX_TOKENS, `cap`, truncates texts that the model would take whole."""
    if found.manifest is None or not cap:
        return
    own = found.manifest.description.max_tokens
    if cap < own:
        text = f"SIDECAR_MAX_TOKENS truncates {found.name}'s texts at {cap} tokens; it takes {own}"
        yield note("model", text, "unset it if the ends of long texts matter more than memory")
    else:
        text = f"SIDECAR_MAX_TOKENS={cap} has no effect: {found.name} takes {own} tokens"
        yield note("model", text, "lower it, or remove it")


def probe_lengths(found: Found) -> list[int]:
    """Return the token counts of the probes that a prepared model's speed was measured on."""
    assert found.manifest is not None
    assert found.artifact is not None
    description = found.manifest.description
    tokenizer = Tokenizer(found.artifact / TOKENIZER, description.max_tokens)
    return [row.tokens for row in tokenizer.rows(probe_inputs(description.task))]


def _advice(found: Found) -> str:
    if "Permission denied" in found.problem:
        return "let the daemon's user read it: use chmod, or move it out of /root and /home"
    return "the daemon would exit with 78: name another model, or put this one in place"


def _owner(cache: Path) -> Owner:
    """Return the owner to judge files for: the cache's, since root may be asking."""
    return Owner.of_folder(cache) if cache.is_dir() else Owner.of_this_process()


def _source(wanted: Wanted, folder: Path, cache: Path, owner: Owner) -> Found:
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
        return _cached(wanted, folder, artifact, owner)
    weights = weight_files(transformer_of(folder))
    damage = tuple(text for path in weights for text in _cut(path))
    return _of_task(
        wanted,
        folder,
        Found(name=wanted.name, folder=folder, source_bytes=size, artifact=artifact, damage=damage),
    )


def _weight_bytes(folder: Path) -> int:
    """Return the bytes of the weights in one format: of two, the one that is read."""
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


def _artifact(wanted: Wanted, folder: Path, owner: Owner) -> Found:
    """Return an artifact that the user named."""
    manifest = library.manifest_of(wanted.name, folder, folder)
    library.check(wanted, manifest)
    damage, refusals = _examined(folder, manifest, owner)
    return Found(
        name=wanted.name,
        folder=folder,
        artifact=folder,
        manifest=manifest,
        source_bytes=manifest.bytes_fp32,
        damage=damage,
        refusals=refusals,
    )


def _cached(wanted: Wanted, folder: Path, artifact: Path, owner: Owner) -> Found:
    """Return an artifact in the cache; a damaged one counts as not prepared."""
    spoilt = Found(name=wanted.name, folder=folder, source_bytes=_weight_bytes(folder))
    try:
        manifest = library.manifest_of(wanted.name, folder, artifact)
    except DamagedError as failure:
        return replace(spoilt, spoilt=(_damage_of(failure),))
    library.check(wanted, manifest)
    damage, refusals = _examined(artifact, manifest, owner)
    if damage:
        return replace(spoilt, spoilt=damage, refusals=refusals)
    return replace(spoilt, artifact=artifact, manifest=manifest, refusals=refusals)


def _examined(
    artifact: Path, manifest: Manifest, owner: Owner
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which files are not as they were written, and which others could change."""
    damage: list[str] = []
    refusals: dict[str, None] = {}  # an ordered set: every file repeats the folder's own
    files = [{name: stored} for name, stored in manifest.files.items()]
    own = partial(refuse_untrusted, artifact / manifests.FILE, owner=owner)
    for step in (own, *(partial(check_files, artifact, each, owner=owner) for each in files)):
        try:
            step()
        except DamagedError as failure:
            damage.append(_damage_of(failure))
        except ModelError as failure:
            refusals[str(failure)] = None
    return tuple(damage), tuple(refusals)


def _damage_of(failure: DamagedError) -> str:
    return f"{failure.path} {failure.reason}"


def _cut(weights: Path) -> Iterator[str]:
    if weights.suffix != ".safetensors":  # reading it would import torch
        return
    try:
        Safetensors(weights)
    except ModelError as failure:
        yield str(failure)
