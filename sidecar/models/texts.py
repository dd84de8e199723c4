"""A user's own texts to calibrate on."""

import json
from pathlib import Path
from typing import Any

from sidecar.models.description import Task
from sidecar.models.errors import ModelError
from sidecar.models.probes import inputs_of
from sidecar.models.rows import Text

_LEAST = 8


def read_texts(path: Path, task: Task) -> tuple[Text, ...]:
    """Return the texts in `path`: a line each of .txt, or the `text` of each line of .jsonl.

    For a reranker the shorter half are the queries and the longer half the passages. Raises
    `ModelError` for a file that cannot be read, a line without a text, or too few of them.
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"calibration texts {path} cannot be read: {error}") from None
    if path.suffix == ".jsonl":
        lines = [_text(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    if len(lines) < _LEAST:
        raise ModelError(f"{path} has {len(lines)} texts; at least {_LEAST} are needed")
    if task == "embed":
        return tuple(lines)
    by_length = sorted(lines, key=len)
    half = len(lines) // 2
    return tuple(inputs_of(task, by_length[:half], by_length[half:]))


def _text(line: str, where: str) -> str:
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        raise ModelError(f"{where} is not JSON: {error}") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise ModelError(f'{where} is not a map with a string "text"')
    return str(entry["text"])
