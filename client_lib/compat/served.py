"""The model in the daemon: which one the app means, and what the daemon tells of it."""

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
    """A model as the daemon's status tells of it. `activation` is None for an embedding model."""

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
    """Return the model that `asked` names, the daemon's first one of that task for None.

    Raises `UnknownModel`, with what is served, where it is not among them.
    """
    models = [model for model in client.status()["models"] if model["task"] == task]
    for model in models:
        if asked is None or means(os.fspath(asked), model["name"]):
            return Served(**{field: model[field] for field in _FIELDS})
    raise UnknownModel(_refusal(asked, task, [model["name"] for model in models]))


def means(asked: str, served: str) -> bool:
    """Whether an app's name or path of a model may mean the one that the daemon calls `served`.

    A hub id is the same with and without its organisation, a folder the same as its last part.
    """
    if is_path(asked) or Path(asked).is_dir():
        return asked == served or _resolved(asked).name == Path(served).name
    return is_same(asked, served)


def _resolved(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError:  # of a home that there is not
        return Path(path)


def _refusal(asked: object, task: Task, names: Iterable[str]) -> str:
    kind, known = _KINDS[task], ", ".join(names)
    start = f"start it with {_FLAGS[task]} {asked or 'NAME'}"
    if not known:
        return f"the daemon serves no {kind}: {start}"
    return f"the daemon serves {known} as {kind}, not {asked}: name that one, or {start}"
