"""Preparing models in the process of the tests, which has loaded all that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest


class _Ended:
    """A process that has ended, for those who wait for one."""

    def __init__(self, code: int) -> None:
        self.code = code

    def wait(self) -> int:
        return self.code

    def terminate(self) -> None:
        pass


def prepare_here(patch: pytest.MonkeyPatch) -> None:
    """Prepare models, and ask sentence-transformers, without the processes that are for it."""
    from sidecar.models import library
    from sidecar.models.oracle import ask

    patch.setattr(library, "prepare_in_subprocess", prepare_quickly)
    patch.setattr(ask, "_started", _answer_here)


def prepare_quickly(order: Any) -> Any:
    """Prepare an artifact, calibrated on fewer tokens and timed fewer times than is worth it."""
    from sidecar.models.oracle import ask
    from sidecar.models.prepare import prepare

    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.setattr(ask, "_started", _answer_here)
        return prepare(order)


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Calibrate on fewer tokens, and time fewer times: small models tell no difference."""
    from sidecar.models import quantize, speed

    patch.setattr(quantize, "_TOKENS", 1_500)
    patch.setattr(speed, "_ROUNDS", 2)


@dataclass(frozen=True)
class _Question:
    """What is asked about a folder; the same of two whose files are the same."""

    fingerprint: str
    task: Any
    folder: Path = field(compare=False)


class _NoAnswerError(Exception):
    """The library does not load the model; why not names its folder."""


@cache
def _answered(question: _Question) -> Mapping[str, bytes]:
    """Return the files that the library answers with."""
    from sidecar.models.oracle.answers import FAILURE
    from sidecar.models.oracle.library import answer

    with TemporaryDirectory() as scratch:
        code = answer(str(question.folder), question.task, scratch)
        if code:
            raise _NoAnswerError(code, (Path(scratch) / FAILURE).read_bytes())
        return {file.name: file.read_bytes() for file in Path(scratch).iterdir()}


def _answer_here(folder: Path, task: Any, scratch: Path) -> _Ended:
    """Ask the library once about folders that many tests write alike."""
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
