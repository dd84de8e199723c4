"""Preparing models in the test process, where the libraries are already loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest


class _Ended:
    """Stands in for a process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def wait(self) -> int:
        return self.code

    def terminate(self) -> None:
        pass


def prepare_here(patch: pytest.MonkeyPatch) -> None:
    """Prepare models and run sentence-transformers in this process instead of subprocesses."""
    from sidecar.models import library
    from sidecar.models.oracle import ask

    patch.setattr(library, "prepare_in_subprocess", prepare_quickly)
    patch.setattr(ask, "_started", _answer_here)


def prepare_quickly(order: Any) -> Any:
    """Prepare an artifact, with less calibration and timing than in production."""
    from sidecar.models.oracle import ask
    from sidecar.models.prepare import prepare

    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.setattr(ask, "_started", _answer_here)
        return prepare(order)


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Calibrate on fewer tokens and time fewer rounds: small models need no more."""
    from sidecar.models import quantize, speed

    patch.setattr(quantize, "_TOKENS", 1_500)
    patch.setattr(speed, "_ROUNDS", 2)


@dataclass(frozen=True)
class _Question:
    """The cache key of an answer: equal for folders with equal files."""

    fingerprint: str
    task: Any
    folder: Path = field(compare=False)


class _NoAnswerError(Exception):
    """The library cannot load the model; the reason names its folder, so it is not cached."""


@cache
def _answered(question: _Question) -> Mapping[str, bytes]:
    """Return the files of the library's answer."""
    from sidecar.models.oracle.answers import FAILURE
    from sidecar.models.oracle.library import answer

    with TemporaryDirectory() as scratch:
        code = answer(str(question.folder), question.task, scratch)
        if code:
            raise _NoAnswerError(code, (Path(scratch) / FAILURE).read_bytes())
        return {file.name: file.read_bytes() for file in Path(scratch).iterdir()}


def _answer_here(folder: Path, task: Any, scratch: Path) -> _Ended:
    """Write the library's answer, cached across folders with equal files."""
    from sidecar.models.digests import Digests, fingerprint
    from sidecar.models.oracle.answers import FAILURE

    try:
        files = _answered(_Question(fingerprint(folder, Digests()), task, folder))
    except _NoAnswerError as error:
        code, why = error.args
        (scratch / FAILURE).write_bytes(why)
        return _Ended(code)
    for name, content in files.items():
        (scratch / name).write_bytes(content)
    return _Ended(0)
