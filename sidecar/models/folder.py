"""A sentence-transformers or transformers folder, read: what the model is and where its parts lie.

Both layouts of sentence-transformers' own files are understood: the one that models on the
hub have, and the one that version 6 writes.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sidecar.encoder.architecture import Encoder, Float32, Pooling, UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.models.description import Activation, Description, Task
from sidecar.models.errors import ModelError, UnknownArchitectureError

_OWN = "config_sentence_transformers.json"
_TASKS: dict[str, Task] = {"SentenceTransformer": "embed", "CrossEncoder": "rerank"}
_FLOATS = {"F64", "F32", "F16"}
_POOLINGS = {
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_cls_token": Pooling.CLS,
    "mean": Pooling.MEAN,
    "cls": Pooling.CLS,
}


def describe(folder: Path) -> Description:
    """Return the description of the model in `folder`.

    Raises `ModelError`, naming the file and what it lacks, for what cannot be served, and
    `UnknownArchitectureError` for what cannot be served by a graph of ours.
    """
    config = _json(folder, "config.json")
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        message = f"{folder}: family {family!r} is not known; known are {_names()}"
        raise UnknownArchitectureError(message)
    if task_of(folder) == "rerank":
        return _describe_reranker(folder, config, family)
    return _describe_embedder(folder, config, family)


def task_of(folder: Path) -> Task:
    """Return what the model in `folder` is for, of whatever family it is.

    It is what sentence-transformers has noted of it; in folders of others a classifier is a
    reranker. Raises `ModelError` where it is not a model folder.
    """
    config = _json(folder, "config.json")
    noted = _TASKS.get(_json(folder, _OWN, optional=True).get("model_type"))
    return noted or ("rerank" if _is_classifier(config) else "embed")


def stated_activation(folder: Path) -> str:
    """Return the dotted path of what makes a reranker's logit a score, or "" for the default.

    Version 6 of sentence-transformers states it in a file of its own, older ones in the
    model's; the newer one counts, as it does there.
    """
    config = _json(folder, "config.json")
    stated = (
        _json(folder, _OWN, optional=True).get("activation_fn")
        or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
    )
    return str(stated or "")


def read_encoder(folder: Path, description: Description) -> Encoder:
    """Return the model's weights as float32 in the shape that the graph builder takes.

    Its layers are read whenever they are asked for, so the file has to stay as it is.

    Raises `ModelError` where a tensor is missing or not a floating-point one.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} has no model.safetensors (other weight formats are not read)")
    try:
        weights = safe_open(path, framework="numpy")  # open for as long as the encoder lives
        family = FAMILIES[description.family]
        tensor = _tensors(weights, family.prefix)
        encoder = family.read(_json(folder, "config.json"), tensor, description.pooling)
        deque(encoder.layers, maxlen=0)  # what is missing is missed here
    except UnsupportedModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
    return encoder


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 over the files that make the model, names and bytes."""
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def stamp(folder: Path) -> str:
    """Return a quick stand-in for `fingerprint` that reads no weights: names, sizes, times."""
    facts = [
        f"{path.relative_to(folder)}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}"
        for path in _files(folder)
    ]
    return hashlib.sha256("\n".join([str(folder), *facts]).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix in {".json", ".safetensors", ".txt"}
    )


def _describe_embedder(folder: Path, config: Mapping[str, Any], family: str) -> Description:
    modules = _modules(folder)
    own = _json(folder, _OWN, optional=True)
    # The library's own two names are always known, and say nothing unless the folder does.
    prompts = {"query": "", "document": "", **(own.get("prompts") or {})}
    return Description(
        task="embed",
        family=family,
        pooling=_pooling(folder / modules["Pooling"]) if "Pooling" in modules else Pooling.MEAN,
        normalize="Normalize" in modules,
        max_tokens=_max_tokens(folder, config),
        prompts=prompts,
        default_prompt_name=own.get("default_prompt_name"),
        activation="identity",
        similarity_fn_name=own.get("similarity_fn_name") or "cosine",
    )


def _describe_reranker(folder: Path, config: Mapping[str, Any], family: str) -> Description:
    if "Pooling" in _modules(folder) or not _is_classifier(config):
        raise UnknownArchitectureError(f"{folder}: a reranker that is not a plain classifier")
    labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 1))
    if labels != 1:
        raise ModelError(f"{folder}: a classifier with {labels} labels is not a reranker (1 label)")
    return Description(
        task="rerank",
        family=family,
        pooling=None,
        normalize=False,
        max_tokens=_max_tokens(folder, config),
        prompts={},
        default_prompt_name=None,
        activation=_score_activation(folder),
    )


def _modules(folder: Path) -> dict[str, str]:
    """Return sentence-transformers' modules, type -> path; none for a plain transformers folder."""
    listed = _json(folder, "modules.json", optional=True)
    modules = {str(m["type"]).rpartition(".")[2]: str(m["path"]) for m in listed or []}
    unknown = set(modules) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        message = f"{folder}: module {', '.join(sorted(unknown))} is not supported"
        raise UnknownArchitectureError(message)
    return modules


def _pooling(folder: Path) -> Pooling:
    config = _json(folder, "config.json")
    flags = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    modes = flags or [str(config.get("pooling_mode"))]
    if len(modes) != 1 or modes[0] not in _POOLINGS or config.get("include_prompt") is False:
        raise UnknownArchitectureError(f"{folder}: pooling {', '.join(modes)} is not supported")
    return _POOLINGS[modes[0]]


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """Return the smallest limit that any of the folder's files states."""
    positions = int(config["max_position_embeddings"])
    stated = [
        positions - FAMILIES[str(config["model_type"])].first_position,
        _json(folder, "sentence_bert_config.json", optional=True).get("max_seq_length"),
        _json(folder, "tokenizer_config.json", optional=True).get("model_max_length"),
    ]
    return int(min(limit for limit in stated if limit))


def _score_activation(folder: Path) -> Activation:
    """Return how a logit becomes a score; sentence-transformers' default is the sigmoid."""
    stated = stated_activation(folder)
    known: dict[str, Activation] = {
        "": "sigmoid",
        "Sigmoid": "sigmoid",
        "Identity": "identity",
    }
    name = stated.rpartition(".")[2]
    if name not in known:
        raise UnknownArchitectureError(f"{folder}: score activation {stated!r} is not supported")
    return known[name]


def _is_classifier(config: Mapping[str, Any]) -> bool:
    return any("SequenceClassification" in name for name in config.get("architectures") or [])


def _tensors(weights: Any, prefix: str) -> Callable[[str], Float32]:
    names = set(weights.keys())

    def tensor(name: str) -> Float32:
        for full in (name, prefix + name):
            if full in names:
                return _float32(full, weights)
        raise KeyError(f"tensor {name!r} is missing")

    return tensor


def _float32(name: str, weights: Any) -> Float32:
    kind = weights.get_slice(name).get_dtype()
    if kind not in _FLOATS:
        raise ValueError(f"tensor {name!r} is {kind}; readable are {', '.join(sorted(_FLOATS))}")
    array: Float32 = weights.get_tensor(name).astype(np.float32, copy=False)
    return array


def _json(folder: Path, name: str, *, optional: bool = False) -> Any:
    path = folder / name
    if optional and not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is not a model folder: it has no {name}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None


def _names() -> str:
    return ", ".join(sorted(FAMILIES))
