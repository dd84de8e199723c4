"""A sentence-transformers or transformers folder, read: what the model is and where its parts lie.

Both layouts of sentence-transformers' own files are understood: the one that models on the
hub have, and the one that version 6 writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import Pooling
from sidecar.encoder.families import FAMILIES
from sidecar.models.description import Activation, Description, Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json
from sidecar.models.folder.limits import max_tokens
from sidecar.models.folder.pipeline import modules_of, pooling_of
from sidecar.models.folder.prompts import FILE, stated_prompts

_TASKS: dict[str, Task] = {"SentenceTransformer": "embed", "CrossEncoder": "rerank"}


def describe(folder: Path) -> Description:
    """Return the description of the model in `folder`.

    Raises `ModelError`, naming the file and what it lacks, for what cannot be served, and
    `UnknownArchitectureError` for what cannot be served by a graph of ours.
    """
    config = read_json(folder, "config.json")
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
    config = read_json(folder, "config.json")
    noted = _TASKS.get(read_json(folder, FILE, optional=True).get("model_type"))
    return noted or ("rerank" if _is_classifier(config) else "embed")


def stated_activation(folder: Path) -> str:
    """Return the dotted path of what makes a reranker's logit a score, or "" for the default.

    Version 6 of sentence-transformers states it in a file of its own, older ones in the
    model's; the newer one counts, as it does there.
    """
    config = read_json(folder, "config.json")
    stated = (
        read_json(folder, FILE, optional=True).get("activation_fn")
        or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
    )
    return str(stated or "")


def _describe_embedder(folder: Path, config: Mapping[str, Any], family: str) -> Description:
    modules = modules_of(folder)
    own = read_json(folder, FILE, optional=True)
    prompts = stated_prompts(folder, "embed")
    return Description(
        task="embed",
        family=family,
        pooling=pooling_of(folder / modules["Pooling"]) if "Pooling" in modules else Pooling.MEAN,
        normalize="Normalize" in modules,
        max_tokens=max_tokens(folder, config),
        prompts=prompts.by_name,
        default_prompt_name=prompts.default_name,
        activation="identity",
        similarity_fn_name=own.get("similarity_fn_name") or "cosine",
    )


def _describe_reranker(folder: Path, config: Mapping[str, Any], family: str) -> Description:
    if "Pooling" in modules_of(folder) or not _is_classifier(config):
        raise UnknownArchitectureError(f"{folder}: a reranker that is not a plain classifier")
    labels = len(config.get("id2label") or {}) or int(config.get("num_labels", 1))
    if labels != 1:
        raise ModelError(f"{folder}: a classifier with {labels} labels is not a reranker (1 label)")
    return Description(
        task="rerank",
        family=family,
        pooling=None,
        normalize=False,
        max_tokens=max_tokens(folder, config),
        prompts={},
        default_prompt_name=None,
        activation=_score_activation(folder),
    )


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


def _names() -> str:
    return ", ".join(sorted(FAMILIES))
