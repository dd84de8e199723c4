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

from sidecar.models.folder.settings import Settings, refused
from sidecar.models.folder.tokenizer import tokenizer_fields

_LENGTH = "model_max_length"
# Where transformers stops to count: 1e30 in a file says that there is no limit.
_UNLIMITED = 10**20
# These begin to count positions behind the padding's id; MPNet takes 1 whatever is stated.
_BEHIND_PADDING = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert"}
_PADDING = 1


def max_tokens(folder: Path, config: Mapping[str, Any], settings: Settings) -> int:
    """Return the most tokens of a row, special ones included.

    `config` is config.json with the defaults of its class. Raises `UnknownArchitectureError`
    for a limit that is not a number of tokens.
    """
    positions = int(config["max_position_embeddings"])
    value: Any = settings.max_seq_length
    if value is not None and _LENGTH not in settings.tokenizer:
        field = "max_seq_length"
    else:
        fields = tokenizer_fields(folder, settings)
        field = _LENGTH if _LENGTH in fields else "max_len"
        value = fields.get(field)
    return min(_limit(folder, field, value), positions - _before_first(config))


def _limit(folder: Path, field: str, value: Any) -> int:
    if value is None or (isinstance(value, int | float) and value > _UNLIMITED):
        return _UNLIMITED
    if type(value) is not int or value < 1:
        raise refused(folder, field, value)
    return value


def _before_first(config: Mapping[str, Any]) -> int:
    """Return how many rows of the table of positions stand before the first token's."""
    family = config.get("model_type")
    if family == "mpnet":
        return _PADDING + 1
    return int(config.get("pad_token_id", _PADDING)) + 1 if family in _BEHIND_PADDING else 0
