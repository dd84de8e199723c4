"""Errors for options that a daemon cannot honour."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from client_lib.compat.served import Served

_IN_THE_DAEMON = (
    "the model runs in the daemon; configure it there, or load it with sentence_transformers"
)
# Options that only say where the files are or what runs the model; they do not change the result.
IGNORED = frozenset({
    "backend", "cache_folder", "local_files_only", "model_card_data", "token", "trust_remote_code",
    "use_auth_token",
})  # fmt: skip


def refuse_options(call: str, options: Mapping[str, Any], ignored: Iterable[str] = ()) -> None:
    """Raise `ValueError` for any option that is not None, unless it is one of `ignored`."""
    for name, value in options.items():
        if value is not None and name not in ignored:
            raise ValueError(f"{call}: {name}={value!r:.80} is not supported: {_IN_THE_DAEMON}")


def refuse_attribute(owner: object, name: str) -> NoReturn:
    """Raise `AttributeError` for an attribute that only a model in this process has."""
    kind = type(owner).__name__
    raise AttributeError(f"client_lib.compat.{kind} has no {name!r}: {_IN_THE_DAEMON}")


def check_batch_size(batch_size: int) -> None:
    """Raise `ValueError` unless the size, which the daemon ignores, is positive."""
    if batch_size <= 0:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size}.")


def check_dimensions(dimensions: int | None) -> None:
    """Raise `TypeError` for a bool: True would mean one dimension."""
    if isinstance(dimensions, bool | np.bool_):
        raise TypeError(f"truncate_dim must be a whole number above 0, not {dimensions!r}")


def refuse_other_length(name: str, value: int | None, served: Served) -> None:
    """Raise `ValueError` for a token limit other than the daemon's."""
    if value is not None and value != served.max_tokens:
        raise ValueError(
            f"{name}={value}: the daemon truncates texts at {served.max_tokens} tokens, the limit "
            f"in the model folder of {served.name}; change it there"
        )
