"""What a text is for, and which of a model's prompts is prepended to it. Pure.

The rule is that of sentence-transformers' `encode_query` and `encode_document`.
"""

from collections.abc import Container, Mapping
from typing import Literal, TypeAlias, get_args

Role: TypeAlias = Literal["query", "document"]
ROLES: tuple[Role, ...] = get_args(Role)
_NAMES: Mapping[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


def role_prompt_name(role: Role, prompts: Container[str]) -> str | None:
    """Return the name of the prompt for `role`, or None if only the default prompt applies.

    It is the first of the role's names in `prompts`, even if that prompt is empty:
    sentence-transformers always defines "query" and "document".
    """
    return next((name for name in _NAMES[role] if name in prompts), None)
