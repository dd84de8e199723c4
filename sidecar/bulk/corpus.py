"""The texts of several files, in order, each with its file and line."""

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
    """A text with its file and its line number (in Parquet, row number), from 1."""

    text: str
    path: Path
    number: int

    @property
    def place(self) -> str:
        """The text's location, for messages."""
        return _place(self.path, self.number)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts in `field` of the files at `paths`, in order."""

    paths: tuple[Path, ...]
    field: str

    def rows(self) -> Iterator[Row]:
        """Yield every text. Raises `InputError`, naming the location, for anything but a text."""
        for path in self.paths:
            for number, fields in self.records(path):
                yield Row(self._text(fields, path, number), path, number)

    def records(self, path: Path) -> Iterator[Record]:
        """Yield the records of a file, for Parquet with only `field`. Raises `InputError`."""
        try:
            yield from _reader(path)(path, self.field)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None

    def identity(self) -> list[dict[str, Any]]:
        """Return what identifies these files: paths, sizes in bytes and modification times."""
        try:
            return [_identity(path) for path in self.paths]
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}") from None

    def _text(self, fields: Mapping[str, Any], path: Path, number: int) -> str:
        text = fields.get(self.field)
        if self.field not in fields:
            names = ", ".join(map(repr, fields))
            others = f", only {names}: choose one with --field" if names else " or any other"
            what = f"has no field {self.field!r}{others}"
        elif not isinstance(text, str):
            what = f"holds {type(text).__name__} in {self.field!r}, not a string"
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
            # Imported on demand: it requires an extra.
            read = import_module("sidecar.bulk.tables").read_field
            return read
    raise InputError(f"{path}: unsupported file type, use .txt, .jsonl, .csv or .parquet")
