"""How many tokens a model takes: what the folder states, in the library's order, and can bear.

1. sentence-transformers' own settings: `model_max_length` among the tokenizer's, or else
   `max_seq_length`. Either counts whatever the tokenizer's files say.
2. Otherwise the smaller of the tokenizer's `model_max_length`, if it states one, and the model's
   `max_position_embeddings`.

The library believes these. Where the table of positions ends earlier, it crashes on a longer
text; texts are cut there instead, so every text that the library can embed comes out the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.families import FAMILIES
from sidecar.models.folder.settings import Settings, refused
from sidecar.models.folder.tokenizer import tokenizer_fields

_LENGTH = "model_max_length"
# Where transformers stops to count: 1e30 in a file says that there is no limit.
_UNLIMITED = 10**20


def max_tokens(folder: Path, config: Mapping[str, Any], settings: Settings) -> int:
    """Return the most tokens of a row, special ones included.

    `config` is config.json with the defaults of its class. Raises `UnknownArchitectureError`
    for a limit that is not a number of tokens.
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
