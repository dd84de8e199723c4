"""Files of text → records: a line of .txt, an object of .jsonl, a row of .csv, each by its line.

Files are UTF-8 and are read a line at a time.
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
"""The number of a line, from 1, and the fields that stand in it."""


def read_txt(path: Path, field: str) -> Iterator[Record]:
    """Yield each line as `field`; an empty one is an empty text, so that rows are lines."""
    for number, line in numbered_lines(path, InputError):
        yield number, {field: without_end(line)}


def read_jsonl(path: Path, _field: str) -> Iterator[Record]:
    """Yield each line's object; lines of nothing but space are passed over."""
    for number, line in numbered_lines(path, InputError):
        if line.isspace():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise InputError(f"{path}:{number} is no JSON object")
        yield number, fields


def read_csv(path: Path, _field: str) -> Iterator[Record]:
    """Yield each row by the names in the first one; a row has the number of its last line."""
    csv.field_size_limit(sys.maxsize)  # a text may be a book: the daemon has a limit of its own
    reader = csv.reader((line for _, line in numbered_lines(path, InputError)), strict=True)
    try:
        names = next(reader, [])
        for cells in filter(None, reader):
            if len(cells) != len(names):
                counts = f"{len(cells)} cells, the first row {len(names)}"
                raise InputError(f"{path}:{reader.line_num} has {counts}")
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num} is not CSV: {error}") from None
