"""Texts to compute: a file of JSON lines, each an object with `text`."""

import argparse
import json
from itertools import islice
from pathlib import Path

from sidecar.lines import numbered_lines

_EXPECTED = "texts are JSON lines, each an object with `text`; --data names another file"


def add_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data/load-mixed/texts.jsonl"))
    parser.add_argument("--texts", type=int, default=count)


def read(path: Path, count: int) -> list[str]:
    """Return the first `count` texts of a file, or all that it has.

    A file that is missing or not of that form ends the program, which says so.
    """
    lines = numbered_lines(path, lambda said: SystemExit(f"{said}; {_EXPECTED}"))
    texts = [_text(line, f"{path}:{number}") for number, line in islice(lines, count)]
    if not texts:
        raise SystemExit(f"{path}: no texts in it; {_EXPECTED}")
    return texts


def _text(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise SystemExit(f"{where} is not of that form; {_EXPECTED}")
    return text
