"""Texts to compute: a file of JSON lines, each an object with `text`."""

import json
from itertools import islice
from pathlib import Path


def read(path: Path, count: int) -> list[str]:
    """Return the first `count` texts of a file, or all that it has."""
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in islice(lines, count)]
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; --data names a file of texts") from None
