"""Metrics in a file, for a collector that reads files."""

import os
import tempfile
from pathlib import Path

_READABLE = 0o644


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by all; whoever reads it sees the old or the new, whole.

    Raises `OSError` where the folder is missing or may not be written to.
    """
    # Without the suffix of `path`: a collector that takes all *.prom would take this one, too.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(_READABLE)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
