"""An artifact: a graph, its weights, a tokenizer, and a manifest that describes them."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import Pooling
from sidecar.models.description import Description
from sidecar.models.errors import DamagedError
from sidecar.models.intact import Files, Stored, read_bytes
from sidecar.models.verification import Verification

FORMAT = 4
FILE = "manifest.json"
GRAPH = "model.onnx"
WEIGHTS = f"{GRAPH}.data"
TOKENIZER = "tokenizer.json"
_OWN = "sha256"  # of the manifest itself, without this field


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How close a quantized model is to FP32 on `texts` probe texts.

    For an embedder, `mean`, `p1` (the first percentile) and `min` are cosines between a text's two
    vectors. For a reranker, they are one minus the absolute difference between a pair's two scores,
    and `rank_agreement` is the share of document pairs that both put in the same order.
    """

    mean: float
    p1: float
    min: float
    texts: int
    rank_agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Speed:
    """Typical milliseconds per forward: the shortest probe, the longest, and the mean over all."""

    short_ms: float
    long_ms: float
    mixed_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that serving needs to know besides the graph; sizes in bytes, times in seconds.

    `quantization` is the result: "none" if nothing else passed the gate. `requested` is what was
    asked for; `kept` names the Linear layers that stayed in FP32; `speed` is that of FP32 ("none")
    and of the quantization, on the preparing host. `verified` is the proof that
    sentence-transformers gives the same in FP32, None if the preparing host could not ask it.
    `files` are the artifact's files except its manifest.
    """

    name: str
    description: Description
    dimensions: int
    requested: str
    quantization: str
    weight_bits: int
    kernel: str
    kept: tuple[str, ...]
    quality: Quality | None
    speed: Mapping[str, Speed]
    verified: Verification | None
    bytes_fp32: int
    bytes_weights: int
    seconds: float
    source_sha256: str
    versions: Mapping[str, str]
    files: Files
    format: int = FORMAT


def write(folder: Path, manifest: Manifest) -> None:
    """Write `manifest`, with its own digest, into the artifact at `folder`."""
    fields = dataclasses.asdict(manifest)
    text = json.dumps({**fields, _OWN: _digest(fields)}, indent=2, ensure_ascii=False)
    (folder / FILE).write_text(text + "\n", "utf-8")


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def is_artifact(folder: Path) -> bool:
    """Whether `folder` holds an artifact rather than a source model."""
    return (folder / FILE).is_file()


def read(folder: Path) -> Manifest:
    """Return the manifest of the artifact at `folder`.

    Raises `DamagedError` if it is missing, changed, malformed or of another format, and
    `ModelError` if this user may not read it. Does not check who may write to it.
    """
    path = folder / FILE
    content = read_bytes(path)
    try:
        fields = json.loads(content)
        if fields.get("format") != FORMAT:
            raise DamagedError(path, f"has format {fields.get('format')!r}, not {FORMAT}")
        if fields.pop(_OWN) != _digest(fields):
            raise DamagedError(path, "does not match its recorded SHA-256")
        return _from_json(fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(path, f"is not a valid manifest ({error!r})") from error


def _from_json(fields: dict[str, Any]) -> Manifest:
    quality, verified = fields["quality"], fields["verified"]
    nested = {
        "description": _description(fields["description"]),
        "quality": Quality(**quality) if quality else None,
        "verified": Verification(**verified) if verified else None,
        "kept": tuple(fields["kept"]),
        "files": {name: Stored(**stored) for name, stored in fields["files"].items()},
        "speed": {name: Speed(**speed) for name, speed in fields["speed"].items()},
    }
    return Manifest(**{**fields, **nested})


def _description(fields: dict[str, Any]) -> Description:
    return Description(**{**fields, "pooling": tuple(map(Pooling, fields["pooling"]))})
