"""Text files → records with line numbers: lines of .txt, objects of .jsonl, rows of .csv.

Files are UTF-8 and are read line by line.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from sidecar.bulk.errors import InputError
from sidecar.lines import numbered_lines, without_end

Record: TypeAlias = tuple[int, Mapping[str, Any]]
"""The number of a line, from 1, and its fields."""


def read_txt(path: Path, field: str) -> Iterator[Record]:
    """Yield each line as `field`; an empty line is an empty text, so that rows match lines."""
    for number, line in numbered_lines(path, InputError):
        yield number, {field: without_end(line)}


def read_jsonl(path: Path, _field: str) -> Iterator[Record]:
    """Yield the object in each line; blank lines are skipped."""
    for number, line in numbered_lines(path, InputError):
        if line.isspace():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise InputError(f"{path}:{number} is not a JSON object")
        yield number, fields


def read_csv(path: Path, _field: str) -> Iterator[Record]:
    """Yield each row, keyed by the header, with the number of its last line."""
    csv.field_size_limit(sys.maxsize)  # texts may be long; the daemon enforces its own limit
    reader = csv.reader((line for _, line in numbered_lines(path, InputError)), strict=True)
    try:
        names = next(reader, [])
        for cells in filter(None, reader):
            if len(cells) != len(names):
                counts = f"{len(cells)} cells, but the header has {len(names)}"
                raise InputError(f"{path}:{reader.line_num} has {counts}")
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num} is not CSV: {error}") from None
