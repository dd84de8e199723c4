"""Read a user's own texts to calibrate on."""

import json
from pathlib import Path
from typing import Any

from client_lib.texts import half_character
from sidecar.lines import numbered_lines, without_end
from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.probes import inputs_of
from sidecar.models.rows import Text

_LEAST = 8


def read_texts(path: Path, task: Task) -> tuple[Text, ...]:
    """Return the texts in `path`: one per line of .txt, or the `text` of each line of .jsonl.

    For a reranker, the shorter half become the queries and the longer half the passages. Raises
    `ModelError` for a file that cannot be read, a line without a text, or too few texts.
    """
    read = _text if path.suffix == ".jsonl" else _line
    numbered = numbered_lines(path, ModelError)
    texts = [read(line, f"{path}:{number}") for number, line in numbered if line.strip()]
    if len(texts) < _LEAST:
        raise ModelError(f"{path} has {len(texts)} texts; at least {_LEAST} are needed")
    if task == "embed":
        return tuple(texts)
    by_length = sorted(texts, key=len)
    half = len(texts) // 2
    return tuple(inputs_of(task, by_length[:half], by_length[half:]))


def _line(line: str, _: str) -> str:
    return without_end(line)


def _text(line: str, where: str) -> str:
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        raise ModelError(f"{where} is not JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise ModelError(f'{where} is not an object with a string "text"')
    if half_character(entry["text"]) is not None:
        raise ModelError(f'{where} holds half a character (a lone surrogate) in "text"')
    return str(entry["text"])
