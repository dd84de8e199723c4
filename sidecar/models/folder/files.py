"""The files of a model folder, and JSON reading with errors that name the file."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidecar.models.errors import ModelError

_SUFFIXES = frozenset({".json", ".safetensors", ".bin", ".model", ".txt", ".jinja"})
_LISTS = frozenset({"modules.json"})
_WORDS: Mapping[type, str] = {
    dict: "an object", list: "a list", str: "a string", bool: "true or false",
    int: "an integer", float: "a floating-point number", type(None): "null",
}  # fmt: skip


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert an `OSError` in the block into a `ModelError` that names the file, or else `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        if isinstance(error, PermissionError):
            reason = f"{reason}, for user {os.geteuid()}"
        raise ModelError(f"{error.filename or path} cannot be read: {reason}") from None


def read_json(folder: Path, name: str, *, optional: bool = False) -> Any:
    """Return the JSON in `folder`/`name`, or an empty value if it is `optional` and missing.

    The value is an object, except in modules.json, which holds a list. Raises `ModelError`, naming
    the file, if it is missing, cannot be read or holds anything else.
    """
    path, kind = folder / name, list if name in _LISTS else dict
    with reading(path):
        if optional and not path.exists():
            return kind()
        try:
            found = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ModelError(f"{folder} is not a model folder: it has no {name}") from None
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(found, kind):
        raise ModelError(f"{path} holds {_WORDS[type(found)]}, not {_WORDS[kind]}")
    return found


def check_types(path: Path, stated: Mapping[str, Any], known: Mapping[str, Sequence[type]]) -> None:
    """Raise `ModelError`, naming the file and the key, for a value of an unexpected type.

    `known` maps each key to its permitted types.
    """
    for key, types in known.items():
        if key in stated and type(stated[key]) not in types:
            expected = " or ".join(_WORDS[kind] for kind in types)
            raise ModelError(f"{path}: {key} is {stated[key]!r}, not {expected}")


def model_files(folder: Path) -> list[Path]:
    """Return the files that define the model (configs, tokenizer and weights), sorted."""
    with reading(folder):
        found = (path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
        return sorted(path for path in found if path.is_file())
