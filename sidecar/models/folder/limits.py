"""A model's maximum number of tokens, resolved in the library's order.

1. sentence-transformers' own settings: `model_max_length` among the tokenizer arguments, or else
   `max_seq_length`. Either overrides the tokenizer's files.
2. Otherwise the smaller of the tokenizer's `model_max_length`, if stated, and the model's
   `max_position_embeddings`.

The library trusts these. If the position table is shorter, it crashes on a longer text. Here such
a text is truncated, so every text that the library can embed gives the same result.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.families import FAMILIES
from sidecar.models.folder.settings import Settings, refused
from sidecar.models.folder.tokenizer import tokenizer_fields

_LENGTH = "model_max_length"
# transformers' threshold for "no limit": files state 1e30.
_UNLIMITED = 10**20


def max_tokens(folder: Path, config: Mapping[str, Any], settings: Settings) -> int:
    """Return the maximum number of tokens per row, special tokens included.

    `config` is config.json with its class's defaults. Raises `UnknownArchitectureError` if a
    stated limit is not a positive integer.
    """
    value: Any = settings.max_seq_length
    if value is not None and _LENGTH not in settings.tokenizer:
        field = "max_seq_length"
    else:
        fields = tokenizer_fields(folder, settings)
        field = _LENGTH if _LENGTH in fields else "max_len"
        value = fields.get(field)
    bearable = FAMILIES[str(config["model_type"])].longest_row(config)
    return min(_limit(folder, field, value), bearable)


def _limit(folder: Path, field: str, value: Any) -> int:
    if value is None or (isinstance(value, int | float) and value > _UNLIMITED):
        return _UNLIMITED
    if type(value) is not int or value < 1:
        raise refused(folder, field, value)
    return value
