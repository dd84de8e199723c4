"""The interface of a served model, and how requests select a model and a prompt by name."""

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
        """The width of `forward`'s result."""

    @property
    def least_tokens(self) -> int:
        """The shortest row, with special tokens; 0 if a text without tokens has a vector."""

    @property
    def max_tokens(self) -> int:
        """The longest row, with special tokens."""

    @property
    def normalize(self) -> bool:
        """Whether vectors are scaled to length 1 unless the request says otherwise."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompts (prefixes of texts) by name."""

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt for requests that name none."""

    def tokenize(self, texts: Sequence[Text]) -> list[Row]:
        """Return one row per text. Called from several threads at once; releases the GIL."""

    def forward(self, row: Row) -> Float32:
        """Return float32 [dimensions], not normalised. Called from many threads at once."""

    @property
    def intra_op_threads(self) -> int:
        """Threads to compute a row with when nothing else runs; 1 if `forward` is as fast."""

    def forward_parallel(self, row: Row) -> Float32:
        """Return the result of `forward`, computed on `intra_op_threads` threads."""

    def describe(self) -> dict[str, Any]:
        """Return the model as `status` reports it."""


class ModelRegistry:
    """The served models; the first one of a task is the default for it."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)

    def embedder(self, name: str | None) -> ServedModel:
        """Return the embedding model `name`, or the default one.

        Raises `UnknownModel`, or `BadRequest` if `name` is not an embedding model.
        """
        if name is None:
            return self._first("embed")
        model = self._named(name)
        if model.task != "embed":
            raise BadRequest(f"model {model.name!r} is a reranker and produces no embeddings")
        return model

    def reranker(self, name: str | None) -> ServedModel:
        """Return the model `name`, or the default for `rerank`: preferably a cross-encoder."""
        if name is not None:
            return self._named(name)
        has_reranker = any(model.task == "rerank" for model in self.models)
        return self._first("rerank" if has_reranker else "embed")

    def _first(self, task: Task) -> ServedModel:
        for model in self.models:
            if model.task == task:
                return model
        raise UnknownModel(f"no model for {task!r} is served; served: {self._names()}")

    def _named(self, name: str) -> ServedModel:
        """Return the model with exactly this name, or the only one whose hub id matches it."""
        exact = [model for model in self.models if model.name == name]
        found = exact or [model for model in self.models if is_same(name, model.name)]
        if len(found) == 1:
            return found[0]
        what = "is ambiguous" if found else "is not served"
        raise UnknownModel(f"model {quoted(name)} {what}; served: {self._names()}")

    def _names(self) -> str:
        return ", ".join(model.name for model in self.models)


def prompt_text(model: ServedModel, *, name: str | None = None, role: Role | None = None) -> str:
    """Return the prompt called `name`, or else the one for `role`, or else the model's default.

    Returns "" if there is none of them. Raises `BadRequest`, listing the model's prompts, if it
    has no prompt `name`.
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
