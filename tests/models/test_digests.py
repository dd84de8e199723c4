"""Digests that are remembered, and the place in the cache that they decide."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from sidecar.models import digests
from sidecar.models.digests import Digests, fingerprint
from sidecar.models.library import Wanted, open_model
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision

MakeModel = Callable[..., Path]
FP32 = Precision("none", weight_bits=7, floor=0)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just written are remembered as if they were older."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**10))


def hashed(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of the files that are read to find the folder's place in the cache."""
    read: set[str] = set()
    digest = digests.hashlib.file_digest
    with monkeypatch.context() as patch:
        patch.setattr(
            digests.hashlib,
            "file_digest",
            lambda file, name: (read.add(Path(file.name).name), digest(file, name))[1],
        )
        cached_path(folder, FP32, cache)
    return read


def test_only_what_is_new_is_hashed(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a warm start nothing; after an edit, the file that was edited."""
    folder = make_model()
    everything = {"config.json", "modules.json", "model.safetensors", "tokenizer.json"}
    assert hashed(folder, tmp_path, monkeypatch) >= everything
    assert hashed(folder, tmp_path, monkeypatch) == set()
    config = folder / "config.json"
    config.write_text(config.read_text())
    assert hashed(folder, tmp_path, monkeypatch) == {"config.json"}


def test_an_edit_is_seen_whatever_its_times(make_model: MakeModel, tmp_path: Path) -> None:
    """One byte of the weights, its size and times put back: the change itself has a time."""
    folder = make_model()
    weights = folder / "model.safetensors"
    before, facts = cached_path(folder, FP32, tmp_path), weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert weights.stat().st_mtime_ns == facts.st_mtime_ns
    assert cached_path(folder, FP32, tmp_path) != before


def test_every_file_counts(make_model: MakeModel, tmp_path: Path) -> None:
    """Weights of torch's and SentencePiece's models, too; their names, and where they lie."""
    folder = make_model()
    seen = {fingerprint(folder, Digests())}
    for name in ("pytorch_model.bin", "spiece.model", "vocab.txt", "2_Dense/config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1")
        seen.add(fingerprint(folder, Digests()))
    (folder / "spiece.model").rename(folder / "sentencepiece.model")
    seen.add(fingerprint(folder, Digests()))
    assert len(seen) == 6


def test_a_file_just_written_is_not_remembered(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change within the same tick of the clock would look like none."""
    monkeypatch.undo()
    folder = make_model()
    assert hashed(folder, tmp_path, monkeypatch)
    assert "config.json" in hashed(folder, tmp_path, monkeypatch)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"1 2 3 4 5": 7}', b"\xff"])
def test_a_memory_that_is_damaged_is_made_again(tmp_path: Path, content: bytes) -> None:
    """It costs time, and nothing else."""
    (tmp_path / "digests.json").write_bytes(content)
    file = tmp_path / "file.json"
    file.write_bytes(b"abc")
    known = Digests(tmp_path)
    digest = known.of(file)
    known.remember()
    assert list(json.loads((tmp_path / "digests.json").read_text()).values())[-1] == digest
    assert Digests(tmp_path).of(file) == digest


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that were hashed last are kept."""
    monkeypatch.setattr(digests, "_KEPT", 2)
    for number in range(4):
        known = Digests(tmp_path)
        (tmp_path / f"{number}.json").write_text(str(number))
        last = known.of(tmp_path / f"{number}.json")
        known.remember()
    kept = json.loads((tmp_path / "digests.json").read_text())
    assert len(kept) == 2
    assert list(kept.values())[-1] == last


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """Of another user, or read-only."""
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "file.json").write_text("abc")
    known = Digests(tmp_path / "cache")
    known.of(tmp_path / "file.json")
    known.remember()


@pytest.mark.slow
def test_a_copied_folder_is_not_prepared_again(make_model: MakeModel, tmp_path: Path) -> None:
    """Under another name it is the same model, and answers to that name."""
    first = Path(shutil.copytree(make_model(), tmp_path / "first"))
    second = Path(shutil.copytree(first, tmp_path / "second"))
    told = []
    for folder in (first, second):
        wanted = Wanted(name=str(folder), task="embed", precision=FP32, reason="a test")
        with structlog.testing.capture_logs() as events:
            model = open_model(wanted, tmp_path / "cache")
        told.append([event["event"] for event in events])
        loaded = next(event for event in events if event["event"] == "model.loaded")
        names = {model.name, model.describe()["name"], loaded["model"]}
        assert names == {folder.name}
    assert "model.prepared" in told[0]
    assert "model.prepared" not in told[1]
    (artifact,) = (tmp_path / "cache").glob("*/manifest.json")
    assert artifact.parent.name.startswith("first-none-")
