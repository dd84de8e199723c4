"""config.json as the model's transformers class reads it: complete and type-checked.

Missing keys take the class's default. A value that the class would reject is refused by name, so
it never reaches a vector.
"""

import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from sidecar.models.errors import ModelError
from sidecar.models.folder.files import check_types, read_json

_FILE = "config.json"
_BERT: Mapping[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "is_decoder": False,
    "add_cross_attention": False,
}
_ROBERTA: Mapping[str, Any] = {**_BERT, "pad_token_id": 1}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "bert": _BERT,
    "roberta": {**_ROBERTA, "vocab_size": 50_265},
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "xlm-roberta-xl": {
        **_ROBERTA,
        "vocab_size": 250_880,
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "intermediate_size": 10_240,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    "mpnet": {
        "vocab_size": 30_527,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
    },
    "distilbert": {
        "vocab_size": 30_522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
    "electra": {
        **_BERT,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    "ernie": {**_BERT, "task_type_vocab_size": 3, "use_task_id": False},
}
"""Default values of each family's transformers config class."""

ALIASES: Mapping[str, Mapping[str, str]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }
}
"""Aliases that a config class accepts for its keys; an alias wins over the key itself."""

_NONE = type(None)
# Common to all families, and read here or by sentence-transformers.
_GENERAL: Mapping[str, tuple[type, ...]] = {
    "model_type": (str,),
    "architectures": (list, _NONE),
    "num_labels": (int,),
    "id2label": (dict, _NONE),
    "auto_map": (dict, _NONE),
    "sentence_transformers": (dict, _NONE),
}
_UNSTATED_LABELS = 2  # transformers does not write id2label for a two-label classifier


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config of the transformer in the model's `folder`.

    For a known family it has every key, under its name and its alias, and it always has
    `num_labels`. Raises `ModelError`, naming the file and the key, for a value that the class
    would reject.
    """
    path = transformer_of(folder) / _FILE
    stated = read_json(path.parent, _FILE)
    check_types(path, stated, _GENERAL)
    family = stated.get("model_type")
    if family is None:
        raise ModelError(f"{path} has no model_type, so the model's architecture is unknown")
    defaults, aliases = DEFAULTS.get(family, {}), ALIASES.get(family, {})
    own = {name: stated[alias] for alias, name in aliases.items() if alias in stated}
    config = {**defaults, **stated, **own}
    _check_family(path, config, defaults)
    config |= {alias: config[name] for alias, name in aliases.items()}
    _check_heads(path, config)
    return {**config, "num_labels": _labels(config)}


def transformer_of(folder: Path) -> Path:
    """Return the transformer's folder: the one that modules.json names, or `folder` itself.

    Raises `ModelError` if modules.json cannot be read or points outside `folder`.
    """
    modules = modules_in(folder)
    transformers = [folder / at for kind, at in modules if kind.endswith(".Transformer")]
    return transformers[0] if transformers else folder


def modules_in(folder: Path) -> list[tuple[str, str]]:
    """Return each module's class, as a dotted path, and its path relative to `folder`.

    Raises `ModelError` if modules.json cannot be read or points outside `folder`.
    """
    path = folder / "modules.json"
    return [_module(path, listed) for listed in read_json(folder, path.name, optional=True)]


def _module(path: Path, listed: Any) -> tuple[str, str]:
    kind, at = (
        (listed.get("type"), listed.get("path")) if isinstance(listed, dict) else (None, None)
    )
    if not isinstance(kind, str) or not isinstance(at, str):
        raise ModelError(f"{path} lists a module without a valid type and path: {listed!r}")
    if PurePath(at).is_absolute() or ".." in PurePath(at).parts:
        raise ModelError(f"{path} names a module outside its folder: {at}")
    return kind, at


def _check_family(path: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    nullable = {"pad_token_id": (_NONE,)}
    known = {key: (type(value), *nullable.get(key, ())) for key, value in defaults.items()}
    check_types(path, config, known)
    for key in defaults:
        value = config[key]
        if type(value) is float and not math.isfinite(value):
            raise ModelError(f"{path}: {key} is {value}, not a finite number")
        if type(value) is int and value < 1 and key != "pad_token_id":
            raise ModelError(f"{path}: {key} is {value}, which is too small")


def _check_heads(path: Path, config: Mapping[str, Any]) -> None:
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if config["model_type"] in DEFAULTS and int(hidden or 0) % int(heads or 1):
        raise ModelError(f"{path}: hidden_size {hidden} is not a multiple of its {heads} heads")


def _labels(config: Mapping[str, Any]) -> int:
    """Return a classifier's number of labels; `num_labels` takes precedence over `id2label`."""
    if "num_labels" in config:
        return int(config["num_labels"])
    names = config.get("id2label")
    return _UNSTATED_LABELS if names is None else len(names)
