"""What a model is, beside its weights: read from its folder, kept in its artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.encoder.architecture import Pooling

Task: TypeAlias = Literal["embed", "rerank"]
Activation: TypeAlias = Literal["sigmoid", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`max_tokens` includes the special ones.

    `pooling` names what makes a text's vector of its tokens', several put side by side, and
    `similarity_fn_name` by what vectors are compared; () and None for a reranker.
    """

    task: Task
    family: str
    pooling: tuple[Pooling, ...]
    normalize: bool
    max_tokens: int
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    activation: Activation
    similarity_fn_name: str | None = None
