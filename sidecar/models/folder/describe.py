"""A sentence-transformers or transformers folder, read: what the model is and where its parts lie.

Both layouts of sentence-transformers' own files are understood: the one that models on the
hub have, and the one that version 6 writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.models.description import Activation, Description, Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.files import read_json
from sidecar.models.folder.limits import max_tokens
from sidecar.models.folder.pipeline import first_of, modules_of, pipeline_of
from sidecar.models.folder.static import FAMILY, longest_static_row

_OWN = "config_sentence_transformers.json"
_TASKS: dict[str, Task] = {"SentenceTransformer": "embed", "CrossEncoder": "rerank"}
_SCORES: dict[str, Activation] = {
    "": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Identity": "identity",
    "torch.nn.modules.linear.Identity": "identity",
}
# transformers' own where a config is silent.
_LABELS = 2


def describe(folder: Path) -> Description:
    """Return the description of the model in `folder`.

    Raises `ModelError`, naming the file and what it lacks, for what cannot be served, and
    `UnknownArchitectureError` for what cannot be served by a graph of ours.
    """
    if task_of(folder) == "rerank":
        return _describe_reranker(folder)
    return _describe_embedder(folder)


def task_of(folder: Path) -> Task:
    """Return what the model in `folder` is for, of whatever family it is.

    It is what sentence-transformers has noted of it, in folders of its own an embedder; in
    folders of others a classifier is a reranker. Raises `ModelError` where it is not a model
    folder.
    """
    noted = _TASKS.get(read_json(folder, _OWN, optional=True).get("model_type"))
    if noted or (folder / "modules.json").is_file():
        return noted or "embed"
    return "rerank" if _is_classifier(read_json(folder, "config.json")) else "embed"


def stated_activation(folder: Path) -> str:
    """Return the dotted path of what makes a reranker's logit a score, or "" for the default.

    Version 6 of sentence-transformers states it in a file of its own, older ones in the
    model's; the newer one counts, as it does there.
    """
    own = _own(folder).get("activation_fn")
    if own is not None:
        return str(own)
    config = read_json(first_of(folder).folder, "config.json")
    nested = config.get("sentence_transformers") or {}
    older = config.get("sbert_ce_default_activation_function")
    stated = nested.get("activation_fn", older)
    return "" if stated is None else str(stated)


def _describe_embedder(folder: Path) -> Description:
    pipeline = pipeline_of(folder)
    first = pipeline.first.folder
    config = {} if pipeline.is_static else read_json(first, "config.json")
    own = _own(folder)
    # The library's own two names are always known, and say nothing unless the folder does.
    prompts = {"query": "", "document": "", **(own.get("prompts") or {})}
    return Description(
        task="embed",
        family=FAMILY if pipeline.is_static else _family(folder, config),
        pooling=pipeline.pooling,
        normalize=pipeline.normalize,
        max_tokens=longest_static_row(first) if pipeline.is_static else _longest(first, config),
        prompts=prompts,
        default_prompt_name=own.get("default_prompt_name"),
        activation="identity",
        similarity_fn_name=own.get("similarity_fn_name") or "cosine",
    )


def _describe_reranker(folder: Path) -> Description:
    kinds = [module.kind for module in modules_of(folder)]
    if kinds not in ([], ["Transformer"]):
        raise UnknownArchitectureError(f"{folder}: a reranker that is not a plain classifier")
    first = first_of(folder).folder
    config = read_json(first, "config.json")
    family = _family(folder, config)
    if not _is_classifier(config):
        raise UnknownArchitectureError(f"{folder}: a reranker that is not a plain classifier")
    labels = len(config.get("id2label") or {}) or config.get("num_labels", _LABELS)
    if labels != 1:
        raise ModelError(f"{folder}: a classifier with {labels} labels is not a reranker (1 label)")
    return Description(
        task="rerank",
        family=family,
        pooling=(),
        normalize=False,
        max_tokens=_longest(first, config),
        prompts={},
        default_prompt_name=None,
        activation=_score_activation(folder),
    )


def _own(folder: Path) -> Mapping[str, Any]:
    """Return the library's own settings, which it reads beside a list of modules only."""
    own: Mapping[str, Any] = read_json(folder, _OWN, optional=True) if modules_of(folder) else {}
    return own


def _family(folder: Path, config: Mapping[str, Any]) -> str:
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        message = f"{folder}: family {family!r} is not known; known are {known}"
        raise UnknownArchitectureError(message)
    return family


def _longest(folder: Path, config: Mapping[str, Any]) -> int:
    try:
        return max_tokens(folder, config)
    except UnsupportedModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from None
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'}: {error}") from None


def _score_activation(folder: Path) -> Activation:
    """Return how a logit becomes a score; sentence-transformers' default is the sigmoid."""
    stated = stated_activation(folder)
    if stated not in _SCORES:
        raise UnknownArchitectureError(f"{folder}: score activation {stated!r} is not supported")
    return _SCORES[stated]


def _is_classifier(config: Mapping[str, Any]) -> bool:
    return any("SequenceClassification" in name for name in config.get("architectures") or [])
