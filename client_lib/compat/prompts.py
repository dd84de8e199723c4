"""Which text goes before each text, and how the daemon is asked for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_lib.compat.served import Served


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompt to name in a request, and what to put before each text here."""

    prompt_name: str | None
    prefix: str


def resolve(
    prompts: Mapping[str, str], default: str | None, *, prompt: str | None, name: str | None
) -> str:
    """Return the prefix that a call means: its own, the one it names, or the default one.

    Raises `ValueError`, with the names that there are, for a name that is none of them.
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
    """Return how to have `prefix` before each text.

    Raises `ValueError` where the daemon would put its model's default prompt before that.
    """
    # 1. The daemon has it under a name. 2. It adds none of its own. 3. It has an empty one.
    for name, text in served.prompts.items():
        if text == prefix:
            return Asked(name, "")
    if served.default_prompt_name is None:
        return Asked(None, prefix)
    for name, text in served.prompts.items():
        if not text:
            return Asked(name, prefix)
    raise ValueError(
        f"{served.name} has the default prompt {served.default_prompt_name!r} and no empty one to "
        f"put {prefix!r} in its place: use prompt_name, with one of {list(served.prompts)}"
    )
