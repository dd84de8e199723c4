"""The sentence-transformers module pipeline that a folder lists."""

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
_IDENTITY = "Dropout"  # at inference
# The library's older flags, in the order in which it concatenates their vectors.
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
    """A module of the library: its class name and the folder with its files."""

    kind: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An embedder's modules: `first`, then `pooling`, then `behind` in order.

    A final Normalize is not in `behind` but sets `normalize`, which a request may override.
    """

    first: Module
    pooling: tuple[Pooling, ...]
    behind: tuple[Module, ...] = ()
    normalize: bool = False

    @property
    def is_static(self) -> bool:
        """Whether it starts with a table of token vectors instead of a transformer."""
        return self.first.kind == STATIC


def modules_of(folder: Path) -> tuple[Module, ...]:
    """Return the modules in order; none for a plain transformers folder.

    Raises `UnknownArchitectureError` for a class from outside sentence-transformers, or an empty
    list.
    """
    listed = modules_in(folder)
    if not listed and (folder / _LIST).is_file():
        raise UnknownArchitectureError(f"{folder / _LIST} lists no modules")
    for kind, _ in listed:
        if not kind.startswith(_LIBRARY):
            message = f"{folder}: module {kind} is not part of sentence-transformers"
            raise UnknownArchitectureError(message)
    return tuple(Module(kind.rpartition(".")[2], folder / at) for kind, at in listed)


def first_of(folder: Path) -> Module:
    """Return the first module of the pipeline."""
    return next(iter(modules_of(folder)), Module("Transformer", folder))


def pipeline_of(folder: Path) -> Pipeline:
    """Return the pipeline of the embedder in `folder`, by default the library's.

    Raises `UnknownArchitectureError` for modules that our graphs do not support.
    """
    first, *others = modules_of(folder) or (Module("Transformer", folder),)
    if first.kind == STATIC:
        pooling: tuple[Pooling, ...] = (Pooling.BAG,)
    elif first.kind != "Transformer":
        raise UnknownArchitectureError(f"{folder}: unsupported first module {first.kind}")
    elif others and others[0].kind == "Pooling":
        pooling = pooling_of(others.pop(0).folder)
    elif not others and not (folder / _LIST).is_file():
        pooling = (Pooling.MEAN,)
    else:
        raise UnknownArchitectureError(f"{folder}: pipeline without Pooling after Transformer")
    behind = [module for module in others if module.kind != _IDENTITY]
    for module in behind:
        _check(folder, module)
    normalize = bool(behind) and behind[-1].kind == "Normalize"
    return Pipeline(first, pooling, tuple(behind[:-1] if normalize else behind), normalize)


def pooling_of(folder: Path) -> tuple[Pooling, ...]:
    """Return the poolings that the module in `folder` concatenates, in the library's order."""
    config = read_json(folder, "config.json")
    if strange := sorted(config.keys() - _POOLING_KEYS):
        # The library fails to load it, too.
        raise UnknownArchitectureError(f"{folder / 'config.json'}: unknown key {strange[0]}")
    modes = _modes(config)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown or not modes:
        raise UnknownArchitectureError(f"{folder}: pooling {unknown} is not supported")
    if config.get("include_prompt", True) is not True:
        # The tokens to exclude depend on the prompt, whose length a row of tokens does not reveal.
        raise UnknownArchitectureError(f"{folder}: include_prompt false is not supported")
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
