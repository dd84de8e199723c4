"""The texts of several files, one after the other, each with the place where it stands."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from client_lib.texts import half_character
from sidecar.bulk.errors import InputError
from sidecar.bulk.records import Record, read_csv, read_jsonl, read_txt

PARQUET = ".parquet"


@dataclass(frozen=True, slots=True)
class Row:
    """A text, and the number of its line (of its row, in Parquet) in a file, from 1."""

    text: str
    path: Path
    number: int

    @property
    def place(self) -> str:
        """Where the text stands, as people write it."""
        return _place(self.path, self.number)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What `field` holds in the files at `paths`, in order."""

    paths: tuple[Path, ...]
    field: str

    def rows(self) -> Iterator[Row]:
        """Yield every text. Raises `InputError`, which names the place of what is none."""
        for path in self.paths:
            for number, fields in self.records(path):
                yield Row(self._text(fields, path, number), path, number)

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records of one file; of Parquet, nothing but `field`. Raises `InputError`."""
        try:
            yield from _reader(path)(path, self.field)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None

    def identity(self) -> list[dict[str, Any]]:
        """Return what tells these files from others: paths, sizes in bytes, times of change."""
        try:
            return [_identity(path) for path in self.paths]
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}") from None

    def _text(self, fields: Mapping[str, Any], path: Path, number: int) -> str:
        text = fields.get(self.field)
        if self.field not in fields:
            names = ", ".join(map(repr, fields))
            what = f"has no field {self.field!r}, but {names}: --field names another"
        elif not isinstance(text, str):
            what = f"holds {type(text).__name__} in {self.field!r}, not a text"
        elif half_character(text) is not None:
            what = f"holds half a character (a lone surrogate) in {self.field!r}"
        else:
            return text
        raise InputError(f"{_place(path, number)} {what}")


def _place(path: Path, number: int) -> str:
    return f"{path}, row {number}" if path.suffix == PARQUET else f"{path}:{number}"


def _identity(path: Path) -> dict[str, Any]:
    found = path.stat()
    return {"path": str(path.resolve()), "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _reader(path: Path) -> Callable[[Path, str], Iterator[Record]]:
    match path.suffix:
        case ".txt":
            return read_txt
        case ".jsonl":
            return read_jsonl
        case ".csv":
            return read_csv
        case ".parquet":
            read: Callable[[Path, str], Iterator[Record]]
            # Here alone: what reads Parquet is an extra.
            read = import_module("sidecar.bulk.tables").read_field
            return read
    raise InputError(f"{path}: a file's name ends with .txt, .jsonl, .csv or .parquet")
