"""Texts to compute: a file of JSON lines, each an object with `text`."""

import argparse
import json
from itertools import islice
from pathlib import Path

_EXPECTED = "texts are JSON lines, each an object with `text`; --data names another file"


def add_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--texts", type=int, default=count)


def read(path: Path, count: int) -> list[str]:
    """Return the first `count` texts of a file, or all that it has.

    A file that is missing or not of that form ends the program, which says so.
    """
    texts: list[str] = []
    try:
        with path.open(encoding="utf-8") as lines:
            texts.extend(map(_text, islice(lines, count)))
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; {_EXPECTED}") from None
    except (ValueError, KeyError, TypeError):
        raise SystemExit(
            f"{path}: line {len(texts) + 1} is not of that form; {_EXPECTED}"
        ) from None
    if not texts:
        raise SystemExit(f"{path}: no texts in it; {_EXPECTED}")
    return texts


def _text(line: str) -> str:
    text = json.loads(line)["text"]
    if not isinstance(text, str):
        raise TypeError(text)
    return text
