"""How many tokens a model takes, as the folder states it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.encoder.families import FAMILIES
from sidecar.models.folder.files import read_json


def max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """Return the smallest limit that any of the folder's files states."""
    stated = [
        FAMILIES[str(config["model_type"])].longest_row(config),
        read_json(folder, "sentence_bert_config.json", optional=True).get("max_seq_length"),
        read_json(folder, "tokenizer_config.json", optional=True).get("model_max_length"),
    ]
    return int(min(limit for limit in stated if limit))
