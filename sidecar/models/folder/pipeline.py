"""The pipeline of modules that sentence-transformers runs, as the folder lists it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.encoder.architecture import Pooling
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.config import modules_in
from sidecar.models.folder.files import read_json

STATIC = "StaticEmbedding"
_LIST = "modules.json"
_LIBRARY = "sentence_transformers."
_BEHIND = {"Dense", "LayerNorm", "Normalize"}
_IDENTITY = "Dropout"  # when a model is served
# The library's older flags, in the order in which it puts their vectors side by side.
_FLAGS = {
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_max_tokens": Pooling.MAX,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": Pooling.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": Pooling.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": Pooling.LAST_TOKEN,
}
_MODES = set(_FLAGS.values())
_POOLING_KEYS = {
    *_FLAGS, "pooling_mode", "word_embedding_dimension", "embedding_dimension", "include_prompt",
}  # fmt: skip
_INPUT = "sentence_embedding"


@dataclass(frozen=True, slots=True)
class Module:
    """One of the library's modules, by its class's name, and the folder of its files."""

    kind: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An embedder's modules: `first`, then pooling, then those `behind` it in their order.

    A Normalize at the end is not among them: `normalize`, a request's choice.
    """

    first: Module
    pooling: tuple[Pooling, ...]
    behind: tuple[Module, ...] = ()
    normalize: bool = False

    @property
    def is_static(self) -> bool:
        """Whether it begins with a table of token vectors, and has no transformer."""
        return self.first.kind == STATIC


def modules_of(folder: Path) -> tuple[Module, ...]:
    """Return sentence-transformers' modules in order; none for a plain transformers folder.

    Raises `UnknownArchitectureError` for a class that is not the library's own, and for a list
    of none.
    """
    listed = modules_in(folder)
    if not listed and (folder / _LIST).is_file():
        raise UnknownArchitectureError(f"{folder / _LIST} lists no modules")
    for kind, _ in listed:
        if not kind.startswith(_LIBRARY):
            message = f"{folder}: module {kind} is not sentence-transformers' own"
            raise UnknownArchitectureError(message)
    return tuple(Module(kind.rpartition(".")[2], folder / at) for kind, at in listed)


def first_of(folder: Path) -> Module:
    """Return the module that a text comes to first."""
    return next(iter(modules_of(folder)), Module("Transformer", folder))


def pipeline_of(folder: Path) -> Pipeline:
    """Return the pipeline of the embedder in `folder`: without a list, the library's default.

    Raises `UnknownArchitectureError` for modules that no graph here computes.
    """
    first, *others = modules_of(folder) or (Module("Transformer", folder),)
    if first.kind == STATIC:
        pooling: tuple[Pooling, ...] = (Pooling.BAG,)
    elif first.kind != "Transformer":
        raise UnknownArchitectureError(f"{folder}: a pipeline that begins with {first.kind}")
    elif others and others[0].kind == "Pooling":
        pooling = pooling_of(others.pop(0).folder)
    elif not others and not (folder / _LIST).is_file():
        pooling = (Pooling.MEAN,)
    else:
        raise UnknownArchitectureError(f"{folder}: a pipeline without Pooling behind Transformer")
    behind = [module for module in others if module.kind != _IDENTITY]
    for module in behind:
        _check(folder, module)
    normalize = bool(behind) and behind[-1].kind == "Normalize"
    return Pipeline(first, pooling, tuple(behind[:-1] if normalize else behind), normalize)


def pooling_of(folder: Path) -> tuple[Pooling, ...]:
    """Return what the Pooling module in `folder` puts side by side, in the library's order."""
    config = read_json(folder, "config.json")
    if strange := sorted(config.keys() - _POOLING_KEYS):
        # The library ends its load at one.
        raise UnknownArchitectureError(f"{folder / 'config.json'}: {strange[0]} is not known")
    modes = _modes(config)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown or not modes:
        raise UnknownArchitectureError(f"{folder}: pooling {unknown} is not supported")
    if config.get("include_prompt", True) is not True:
        # How much is left out depends on the prompt, which a row of tokens does not tell.
        raise UnknownArchitectureError(f"{folder}: pooling with include_prompt false")
    return tuple(Pooling(mode) for mode in modes)


def _modes(config: dict[str, Any]) -> Sequence[Any]:
    if "pooling_mode" in config:
        stated = config["pooling_mode"]
        return stated if isinstance(stated, list) else [stated]
    return [mode for flag, mode in _FLAGS.items() if config.get(flag)] or [Pooling.MEAN]


def _check(folder: Path, module: Module) -> None:
    if module.kind not in _BEHIND:
        raise UnknownArchitectureError(f"{folder}: module {module.kind} is not supported")
    if module.kind == "LayerNorm" or not (module.folder / "config.json").is_file():
        return
    config = read_json(module.folder, "config.json")
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in {None, _INPUT}:
            stated = f"{name} is {config[name]!r}, not {_INPUT!r}"
            raise UnknownArchitectureError(f"{module.folder}: {stated}")
