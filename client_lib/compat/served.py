"""Finds the served model that an app means, and its properties."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from client_lib.names import is_path, is_same
from client_lib.sync import Client
from client_lib.wire.errors import UnknownModel

Task: TypeAlias = Literal["embed", "rerank"]

_KINDS: Mapping[Task, str] = {"embed": "embedding model", "rerank": "reranker"}
_FLAGS: Mapping[Task, str] = {"embed": "--embedding-model", "rerank": "--reranker-model"}


@dataclass(frozen=True, slots=True)
class Served:
    """A model as reported by the daemon's status; embedding models have no `activation`."""

    name: str
    dimensions: int
    max_tokens: int
    normalize: bool
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str | None
    activation: str | None


_FIELDS = Served.__slots__


def find(client: Client, asked: str | os.PathLike[str] | None, task: Task) -> Served:
    """Return the served model that `asked` means; for None, the first one for `task`.

    Raises `UnknownModel`, listing the served models, if there is none.
    """
    models = [model for model in client.status()["models"] if model["task"] == task]
    for model in models:
        if asked is None or means(os.fspath(asked), model["name"]):
            return Served(**{field: model[field] for field in _FIELDS})
    raise UnknownModel(_refusal(asked, task, [model["name"] for model in models]))


def means(asked: str, served: str) -> bool:
    """Whether an app's name or path for a model can mean the daemon's model `served`.

    Hub ids match with or without their organisation, folders by their last component.
    """
    if is_path(asked) or Path(asked).is_dir():
        return asked == served or _resolved(asked).name == Path(served).name
    return is_same(asked, served)


def _resolved(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError:  # `~` without a home directory
        return Path(path)


def _refusal(asked: object, task: Task, names: Iterable[str]) -> str:
    kind, known = _KINDS[task], ", ".join(names)
    start = f"start it with {_FLAGS[task]} {asked or 'NAME'}"
    if not known:
        return f"the daemon serves no {kind}: {start}"
    return f"the daemon serves {known} as {kind}, not {asked}: use that one, or {start}"
