"""Resolves prompts: what to prepend to each text, and how to request it from the daemon."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_lib.compat.served import Served


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompt name for the request, and the prefix to prepend in the client."""

    prompt_name: str | None
    prefix: str


def resolve(
    prompts: Mapping[str, str], default: str | None, *, prompt: str | None, name: str | None
) -> str:
    """Return the prefix for a call: `prompt`, or the prompt called `name`, or the default.

    Raises `ValueError`, listing the known names, for an unknown one.
    """
    if prompt is not None:
        return prompt
    name = default if name is None else name
    if name is None:
        return ""
    if name not in prompts:
        raise ValueError(f"prompt name {name!r} is not one of {list(prompts)}")
    return prompts[name]


def ask(served: Served, prefix: str) -> Asked:
    """Return how to get exactly `prefix` in front of each text.

    Raises `ValueError` if the daemon would inevitably prepend its model's default prompt as well.
    """
    # 1. The daemon knows it by name. 2. There is no default prompt. 3. There is an empty one.
    for name, text in served.prompts.items():
        if text == prefix:
            return Asked(name, "")
    if served.default_prompt_name is None:
        return Asked(None, prefix)
    for name, text in served.prompts.items():
        if not text:
            return Asked(name, prefix)
    raise ValueError(
        f"{served.name} has the default prompt {served.default_prompt_name!r}, and no empty prompt "
        f"that would let {prefix!r} replace it: use prompt_name with one of {list(served.prompts)}"
    )
