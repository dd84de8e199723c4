"""Preparing models in the process of the tests, which has loaded all that it takes."""

from pathlib import Path
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

    patch.setattr(library, "prepare_apart", prepare_quickly)
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


def _answer_here(folder: Path, task: Any, scratch: Path) -> _Ended:
    from sidecar.models.oracle.library import answer

    return _Ended(answer(str(folder), task, str(scratch)))
