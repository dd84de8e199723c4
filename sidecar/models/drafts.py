"""What is written beside its place, and renamed into it once it is whole.

A draft is named after the process that writes it: two that make the same thing do not meet, and
what a process that was killed has left can be told from what another one still writes.
"""

import os
import shutil
from pathlib import Path


def draft_of(path: Path) -> Path:
    """Return where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def sweep(path: Path) -> None:
    """Remove the drafts of `path` whose processes were killed before they could."""
    for draft in path.parent.glob(f".{path.name}.*"):
        pid = draft.suffix.removeprefix(".")
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(draft, ignore_errors=True)
