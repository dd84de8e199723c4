"""Where the library's answers come from: a process that loads the library, or this package.

The default model's answers come with the package, so that a host without the library can verify
that folder, too, and a host with it saves the seconds.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from sidecar.host import read_host
from sidecar.models.description import Task
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.oracle.answers import ANSWERS, FAILURE, TOKENIZER, Answers, read
from sidecar.models.scarcity import killed

PACKAGED = "all-MiniLM-L6-v2.npz"
"""The default model's answers, a file beside this one; `python -m bench answers` writes it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The library's answers, and its tokenizer as JSON if it has just made one."""

    answers: Answers
    tokenizer: str | None = None


Ask: TypeAlias = Callable[[], Reference | None]
"""Waits for the answers; returns None if there is nothing to ask."""


def has_library() -> bool:
    """Whether sentence-transformers can be imported here."""
    return importlib.util.find_spec("sentence_transformers") is not None


@contextmanager
def inquiry(folder: Path, task: Task, scratch: Path) -> Iterator[Ask]:
    """Start asking about the model in `folder`, using the empty folder `scratch`.

    Waiting for the answers raises `UnknownArchitectureError` if the library cannot load the model,
    and `TemporaryError` if its process was killed.
    """
    if (packaged := _packaged(folder)) is not None:
        yield lambda: Reference(packaged)
    elif not has_library():
        yield lambda: None
    else:
        process = _started(folder, task, scratch)
        try:
            yield lambda: _reference(process, folder, scratch)
        finally:
            process.terminate()
            process.wait()


def _packaged(folder: Path) -> Answers | None:
    """Return the answers that come with the package, if they are about this very folder."""
    file = resources.files("sidecar.models.oracle").joinpath(PACKAGED)
    with resources.as_file(file) as path:
        answers, about = read(path)
    return answers if fingerprint(folder, Digests()) == about else None


def _started(folder: Path, task: Task, scratch: Path) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "sidecar.models.oracle.library"]
    return subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
        [*program, str(os.getpid()), str(folder), task, str(scratch)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(read_host().cores),
            "TOKENIZERS_PARALLELISM": "false",
        },
    )


def _reference(process: "subprocess.Popen[bytes]", folder: Path, scratch: Path) -> Reference:
    code = process.wait()
    if code == -signal.SIGKILL:
        raise killed(folder.name)
    if (failure := scratch / FAILURE).is_file():
        raise UnknownArchitectureError(
            f"{folder} cannot be verified: sentence-transformers does not load it "
            f"({failure.read_text('utf-8')})"
        )
    if code != 0:
        raise ModelError(f"verifying {folder} failed with exit code {code}")
    answers, _ = read(scratch / ANSWERS)
    tokenizer = scratch / TOKENIZER
    return Reference(answers, tokenizer.read_text("utf-8") if tokenizer.is_file() else None)
