"""The process that asks the library: how it starts, how it ends, and what is made of that."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar.host import read_host
from sidecar.models.errors import ModelError, TemporaryError, UnknownArchitectureError
from sidecar.models.oracle import answers, ask
from sidecar.models.oracle.answers import ANSWERS, FAILURE, TOKENIZER, Answers
from sidecar.models.oracle.ask import inquiry
from sidecar.models.oracle.texts import Probe


class Process:
    """A stand-in for a process that ends with `code`."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.calls: list[str] = []

    def wait(self) -> int:
        self.calls.append("wait")
        return self.code

    def terminate(self) -> None:
        self.calls.append("terminate")


def started(monkeypatch: pytest.MonkeyPatch, code: int) -> Process:
    process = Process(code)
    monkeypatch.setattr(ask, "has_library", lambda: True)
    monkeypatch.setattr(ask, "_packaged", lambda _: None)
    monkeypatch.setattr(ask, "_started", lambda *_: process)
    return process


def test_a_process_never_outlives_the_inquiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends with the inquiry, even if the block raises or never asks."""
    process = started(monkeypatch, 0)
    with inquiry(tmp_path, "embed", tmp_path):
        pass
    assert process.calls == ["terminate", "wait"]
    process.calls.clear()
    with pytest.raises(KeyError), inquiry(tmp_path, "embed", tmp_path):
        raise KeyError
    assert process.calls == ["terminate", "wait"]


@pytest.mark.parametrize(
    ("code", "failure", "kind", "message"),
    [
        (-signal.SIGKILL, None, TemporaryError, "was killed, most likely for lack of memory"),
        (1, "no such class", UnknownArchitectureError, r"does not load it \(no such class\)"),
        (1, None, ModelError, "failed with exit code 1"),
        (-11, None, ModelError, "failed with exit code -11"),
    ],
)
def test_how_it_ended_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: int,
    failure: str | None,
    kind: type[ModelError],
    message: str,
) -> None:
    """A kill, the library's own reason and an unexplained exit are reported as different errors."""
    started(monkeypatch, code)
    if failure:
        (tmp_path / FAILURE).write_text(failure)
    with (
        inquiry(tmp_path, "embed", tmp_path) as asked,
        pytest.raises(ModelError, match=message) as e,
    ):
        asked()
    assert type(e.value) is kind


@pytest.mark.parametrize("tokenizer", [None, "{}"])
def test_answers_and_the_tokenizer_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str | None
) -> None:
    """Answers are read whether or not the library has written a tokenizer."""
    started(monkeypatch, 0)
    row = (np.array([1, 2]),)
    given = Answers(
        versions={"torch": "1"}, ids_of=(Probe("a"),), ids=row, token_types=row,
        outputs_of=(Probe("a"),), outputs=np.ones((1, 2), np.float32),
    )  # fmt: skip
    answers.write(tmp_path / ANSWERS, given)
    if tokenizer:
        (tmp_path / TOKENIZER).write_text(tokenizer)
    with inquiry(tmp_path, "embed", tmp_path) as asked:
        reference = asked()
    assert reference is not None
    assert reference.answers.versions == {"torch": "1"}
    assert reference.tokenizer == tokenizer


@pytest.mark.real_process
def test_the_library_asks_no_hub_and_computes_on_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library runs offline on all cores, and is given its parent, folder, task and output."""
    seen: dict[str, Any] = {}

    def popen(command: list[str], **options: Any) -> Process:
        seen.update(options, command=command)
        return Process(0)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    monkeypatch.setenv("SOMETHING", "else")
    ask._started(tmp_path / "model", "rerank", tmp_path / "scratch")
    assert seen["command"][3:] == [
        str(os.getpid()), str(tmp_path / "model"), "rerank", str(tmp_path / "scratch"),
    ]  # fmt: skip
    assert seen["env"].items() >= {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(read_host().cores), "SOMETHING": "else",
    }.items()  # fmt: skip
    assert {seen[stream] for stream in ("stdin", "stdout", "stderr")} == {subprocess.DEVNULL}


def test_packaged_answers_are_for_one_folder(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packaged answers do not apply to a copy of their folder with one more relevant file."""
    monkeypatch.setattr(ask, "has_library", lambda: False)
    for path in minilm_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    with inquiry(minilm_folder, "embed", tmp_path) as asked:
        assert asked() is not None
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    (tmp_path / "vocab.txt").write_text("[PAD]")
    with inquiry(tmp_path, "embed", tmp_path) as asked:
        assert asked() is None
