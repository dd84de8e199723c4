"""What a model is, beside its weights: read from its folder, kept in its artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.encoder.architecture import Pooling

Task: TypeAlias = Literal["embed", "rerank"]
Activation: TypeAlias = Literal["sigmoid", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`max_tokens` includes the special ones; `pooling` is None for a reranker.

    `similarity_fn_name` is by what vectors are compared; None for a reranker.
    """

    task: Task
    family: str
    pooling: Pooling | None
    normalize: bool
    max_tokens: int
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    activation: Activation
    similarity_fn_name: str | None = None
