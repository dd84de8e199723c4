"""What a text is for, and which of a model's prompts goes before it. Pure.

The rule is sentence-transformers' own, of `encode_query` and `encode_document`.
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
    """Return the name of the prompt of `role`, or None where only the default prompt is left.

    It is the first of the role's names that `prompts` has, also where that prompt is empty: the
    library always has "query" and "document".
    """
    return next((name for name in _NAMES[role] if name in prompts), None)
