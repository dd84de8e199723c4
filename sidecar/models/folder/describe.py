"""Description of the model in a sentence-transformers or transformers folder.

Both layouts of sentence-transformers' own files are supported: the one common on the hub and the
one that version 6 writes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.models.description import Activation, Description, Task
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.config import read_config, transformer_of
from sidecar.models.folder.files import check_types, read_json
from sidecar.models.folder.limits import max_tokens
from sidecar.models.folder.pipeline import Pipeline, modules_of, pipeline_of
from sidecar.models.folder.prompts import FILE, stated_prompts
from sidecar.models.folder.settings import read_settings
from sidecar.models.folder.static import FAMILY, longest_static_row

_MODULES = "modules.json"
_TEXT = (str, type(None))
_TYPES: Mapping[str, tuple[type, ...]] = {
    "model_type": _TEXT,
    "similarity_fn_name": _TEXT,
    "activation_fn": _TEXT,
}
# Keys of a model whose weights are stored in another form or place, or are modified on loading.
_CHANGING = ("quantization_config", "transformers_weights", "per_layer_config")
_ADAPTER = "adapter_config.json"
_TASKS: dict[str, Task] = {"SentenceTransformer": "embed", "CrossEncoder": "rerank"}
_SCORES: dict[str, Activation] = {
    "": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Identity": "identity",
    "torch.nn.modules.linear.Identity": "identity",
}


def describe(folder: Path) -> Description:
    """Return the description of the model in `folder`.

    Raises `ModelError`, naming the file and the problem, if the model cannot be served, and
    `UnknownArchitectureError` if it cannot be served by our own graph.
    """
    if task_of(folder) == "rerank":
        return _describe_reranker(folder)
    return _describe_embedder(folder)


def task_of(folder: Path) -> Task:
    """Return the task of the model in `folder`, whatever its family.

    A sentence-transformers folder states its task and defaults to embedding; in any other folder
    a classifier is a reranker. Raises `ModelError` if `folder` is not a model folder.
    """
    stated = _TASKS.get(str(_library_config(folder).get("model_type")))
    if stated or (folder / _MODULES).is_file():
        return stated or "embed"
    return "rerank" if _is_classifier(read_config(folder)) else "embed"


def stated_activation(folder: Path) -> str:
    """Return the dotted path of a reranker's score activation, or "" for the default.

    sentence-transformers 6 states it in its own file, older versions in the model's config.json.
    The newer one takes precedence, as in the library.
    """
    own = _applied_config(folder).get("activation_fn")
    if own is not None:
        return str(own)
    config = read_config(folder)
    nested = config.get("sentence_transformers") or {}
    older = config.get("sbert_ce_default_activation_function")
    stated = nested.get("activation_fn", older)
    return "" if stated is None else str(stated)


def _refuse_other_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `UnknownArchitectureError` if the weights beside config.json are not the whole model.

    They may be quantized, stored elsewhere, or modified by an adapter.
    """
    changed = [key for key in _CHANGING if config.get(key)]
    if (transformer_of(folder) / _ADAPTER).exists():
        changed.append(_ADAPTER)
    if changed:
        raise UnknownArchitectureError(f"{folder}: {changed[0]} is not supported")


def _library_config(folder: Path) -> Mapping[str, Any]:
    """Return config_sentence_transformers.json, empty if there is none."""
    own: Mapping[str, Any] = read_json(folder, FILE, optional=True)
    check_types(folder / FILE, own, _TYPES)
    return own


def _applied_config(folder: Path) -> Mapping[str, Any]:
    """Return the same, empty without a modules.json: the library then ignores the file."""
    return _library_config(folder) if (folder / _MODULES).is_file() else {}


def _describe_embedder(folder: Path) -> Description:
    pipeline = pipeline_of(folder)
    family, longest = _family_and_limit(folder, pipeline)
    own = _applied_config(folder)
    prompts = stated_prompts(folder, "embed")
    return Description(
        task="embed",
        family=family,
        pooling=pipeline.pooling,
        normalize=pipeline.normalize,
        max_tokens=longest,
        prompts=prompts.by_name,
        default_prompt_name=prompts.default_name,
        activation="identity",
        similarity_fn_name=own.get("similarity_fn_name") or "cosine",
    )


def _family_and_limit(folder: Path, pipeline: Pipeline) -> tuple[str, int]:
    if pipeline.is_static:
        return FAMILY, longest_static_row(pipeline.first.folder)
    config = read_config(folder)
    return _family(folder, config), _longest(folder, config)


def _describe_reranker(folder: Path) -> Description:
    config = read_config(folder)
    family = _family(folder, config)
    kinds = [module.kind for module in modules_of(folder)]
    if kinds not in ([], ["Transformer"]) or not _is_classifier(config):
        raise UnknownArchitectureError(f"{folder}: the reranker is not a plain classifier")
    prompts = stated_prompts(folder, "rerank")
    if prompts.by_name.get(prompts.default_name or ""):
        raise UnknownArchitectureError(f"{folder}: a reranker with a prompt is not supported")
    if (labels := int(config["num_labels"])) != 1:
        raise ModelError(
            f"{folder}: a reranker has 1 label, but this classifier has {labels} labels"
        )
    return Description(
        task="rerank",
        family=family,
        pooling=(),
        normalize=False,
        max_tokens=_longest(folder, config),
        prompts={},
        default_prompt_name=None,
        activation=_score_activation(folder),
    )


def _family(folder: Path, config: Mapping[str, Any]) -> str:
    family = str(config["model_type"])
    if family not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        message = f"{folder}: unknown model family {family!r}; supported families: {known}"
        raise UnknownArchitectureError(message)
    _refuse_other_weights(folder, config)
    return family


def _longest(folder: Path, config: Mapping[str, Any]) -> int:
    try:
        return max_tokens(transformer_of(folder), config, read_settings(folder))
    except UnsupportedModelError as error:
        raise UnknownArchitectureError(f"{folder}: {error}") from None


def _score_activation(folder: Path) -> Activation:
    """Return the score activation; sentence-transformers' default is the sigmoid."""
    stated = stated_activation(folder)
    if stated not in _SCORES:
        raise UnknownArchitectureError(f"{folder}: score activation {stated!r} is not supported")
    return _SCORES[stated]


def _is_classifier(config: Mapping[str, Any]) -> bool:
    return any("SequenceClassification" in name for name in config.get("architectures") or [])
