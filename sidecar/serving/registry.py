"""The models that a daemon serves, as serving sees them, and how a request names one."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client_lib.names import is_same
from client_lib.wire.errors import BadRequest, UnknownModel
from client_lib.wire.messages import quoted
from client_lib.wire.roles import Role, role_prompt_name
from sidecar.models.rows import Row, Text

Float32: TypeAlias = NDArray[np.float32]
Task: TypeAlias = Literal["embed", "rerank"]


class ServedModel(Protocol):
    """A loaded model. `task` is "embed", or "rerank" for a cross-encoder."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def dimensions(self) -> int:
        """Width of `forward`'s result."""

    @property
    def least_tokens(self) -> int:
        """The shortest row, special tokens included: 0 where a text of no tokens has a vector."""

    @property
    def max_tokens(self) -> int:
        """The longest row, special tokens included."""

    @property
    def normalize(self) -> bool:
        """Whether its vectors have length 1 unless the request says otherwise."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prefixes by name."""

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt of a request that names none."""

    def tokenize(self, texts: Sequence[Text]) -> list[Row]:
        """Return one row a text. Called by several threads at once; releases the GIL."""

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions], not normalised. Called by many threads at once."""

    @property
    def intra_op_threads(self) -> int:
        """How many threads compute a row when nothing else runs; 1: `forward` is as fast."""

    def forward_parallel(self, row: Row) -> Float32:
        """Return what `forward` does, computed on `intra_op_threads` threads."""

    def describe(self) -> dict[str, Any]:
        """Return what `status` says of this model."""


class ModelRegistry:
    """The models by name; the first of a task is the one that a request without a name gets."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)

    def embedder(self, name: str | None) -> ServedModel:
        """Return the embedding model `name`, or the default one.

        Raises `UnknownModel`, or `BadRequest` where `name` is not an embedding model.
        """
        if name is None:
            return self._first("embed")
        model = self._named(name)
        if model.task != "embed":
            raise BadRequest(f"model {model.name!r} is a reranker and has no embeddings")
        return model

    def reranker(self, name: str | None) -> ServedModel:
        """Return the model `name`, or the default for `rerank`: a cross-encoder if there is one."""
        if name is not None:
            return self._named(name)
        has_reranker = any(model.task == "rerank" for model in self.models)
        return self._first("rerank" if has_reranker else "embed")

    def _first(self, task: Task) -> ServedModel:
        for model in self.models:
            if model.task == task:
                return model
        raise UnknownModel(f"no model here does {task!r}; served: {self._names()}")

    def _named(self, name: str) -> ServedModel:
        """Return the model of that name, or of that hub id but for its organisation."""
        exact = [model for model in self.models if model.name == name]
        found = exact or [model for model in self.models if is_same(name, model.name)]
        if len(found) == 1:
            return found[0]
        what = "may be one of several" if found else "is not served"
        raise UnknownModel(f"model {quoted(name)} {what}; served: {self._names()}")

    def _names(self) -> str:
        return ", ".join(model.name for model in self.models)


def prompt_text(model: ServedModel, *, name: str | None = None, role: Role | None = None) -> str:
    """Return the prefix named `name`, else that of `role`, else the model's default one.

    "" without any of these. Raises `BadRequest` with the names that the model knows.
    """
    if name is None and role is not None:
        name = role_prompt_name(role, model.prompts)
    if name is None:
        name = model.default_prompt_name
    if name is None:
        return ""
    if name not in model.prompts:
        known = ", ".join(model.prompts) or "none"
        raise BadRequest(f"prompt {quoted(name)} is unknown to {model.name}; known: {known}")
    return model.prompts[name]
