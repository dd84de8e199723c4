"""What a model is, apart from its weights: read from its folder, kept in its artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.encoder.architecture import Pooling

Task: TypeAlias = Literal["embed", "rerank"]
Activation: TypeAlias = Literal["sigmoid", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What serving needs to know about a model, apart from its weights.

    `max_tokens` includes the special tokens. `pooling` lists how a text's vector is made of its
    tokens' vectors; the results of several methods are concatenated. `similarity_fn_name` is the
    function that compares vectors. They are () and None for a reranker.
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
