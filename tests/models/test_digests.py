"""Digests that are saved, and the paths in the cache that they determine."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
    """Let files that a test has just written be remembered as if they were older."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**10))


def hashed(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of the files that are read to determine the folder's path in the cache."""
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
    """A warm start hashes nothing; after an edit, only the edited file is hashed."""
    folder = make_model()
    everything = {"config.json", "modules.json", "model.safetensors", "tokenizer.json"}
    assert hashed(folder, tmp_path, monkeypatch) >= everything
    assert hashed(folder, tmp_path, monkeypatch) == set()
    config = folder / "config.json"
    config.write_text(config.read_text())
    assert hashed(folder, tmp_path, monkeypatch) == {"config.json"}


def test_an_edit_is_seen_whatever_its_times(make_model: MakeModel, tmp_path: Path) -> None:
    """An edit is noticed even if size and times are restored, since its ctime cannot be."""
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
    """The fingerprint covers every file of the model: its contents, its name and its folder."""
    folder = make_model()
    seen = {fingerprint(folder, Digests())}
    for name in (
        "pytorch_model.bin", "spiece.model", "vocab.txt", "2_Dense/config.json",
        "chat_template.jinja", "more.safetensors",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1")
        seen.add(fingerprint(folder, Digests()))
    (folder / "spiece.model").rename(folder / "sentencepiece.model")
    seen.add(fingerprint(folder, Digests()))
    assert len(seen) == 8
    before = fingerprint(folder, Digests())
    (folder / "vocab.txt").write_bytes(b"2")
    assert fingerprint(folder, Digests()) != before
    (folder / "vocab.txt").write_bytes(b"1")
    (folder / "README.md").write_text("of no effect")
    assert fingerprint(folder, Digests()) == before


def test_a_file_just_written_is_not_remembered(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of a file just written is not saved: another change could have the same time."""
    monkeypatch.undo()
    folder = make_model()
    assert hashed(folder, tmp_path, monkeypatch)
    assert "config.json" in hashed(folder, tmp_path, monkeypatch)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"1 2 3 4 5": 7}', b"\xff"])
def test_a_memory_that_is_damaged_is_made_again(tmp_path: Path, content: bytes) -> None:
    """A damaged file of digests is rebuilt, which costs only time."""
    (tmp_path / "digests.json").write_bytes(content)
    file = tmp_path / "file.json"
    file.write_bytes(b"abc")
    known = Digests(tmp_path)
    digest = known.of(file)
    known.remember()
    assert list(json.loads((tmp_path / "digests.json").read_text()).values())[-1] == digest
    assert Digests(tmp_path).of(file) == digest


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of saved digests is bounded; those of the files hashed last are kept."""
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
    """A cache that cannot be written, as another user's, is not an error."""
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "file.json").write_text("abc")
    known = Digests(tmp_path / "cache")
    known.of(tmp_path / "file.json")
    known.remember()


@pytest.mark.slow
def test_a_copied_folder_is_not_prepared_again(make_model: MakeModel, tmp_path: Path) -> None:
    """A copied folder is not prepared again, and its model is served under the copy's name."""
    first = Path(shutil.copytree(make_model(), tmp_path / "first"))
    second = Path(shutil.copytree(first, tmp_path / "second"))
    event_names = []
    for folder in (first, second):
        wanted = Wanted(name=str(folder), task="embed", precision=FP32, reason="a test")
        with structlog.testing.capture_logs() as events:
            model = open_model(wanted, tmp_path / "cache")
        event_names.append([event["event"] for event in events])
        loaded = next(event for event in events if event["event"] == "model.loaded")
        names = {model.name, model.describe()["name"], loaded["model"]}
        assert names == {folder.name}
    assert "model.prepared" in event_names[0]
    assert "model.prepared" not in event_names[1]
    (artifact,) = (tmp_path / "cache").glob("*/manifest.json")
    assert artifact.parent.name.startswith("first-none-")


def test_a_file_is_known_by_all_that_tells_it_from_others(tmp_path: Path) -> None:
    """A file is read again if its device, inode, size or a time differs from what is saved."""
    path = tmp_path / "file.json"
    path.write_bytes(b"abc")
    facts, known = path.stat(), Digests(tmp_path)
    known.known_or(path, facts, lambda: "of abc")
    known.remember()
    assert Digests(tmp_path).known_or(path, facts, lambda: "read again") == "of abc"
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    for name in names:
        own = {each: getattr(facts, each) for each in names}
        other: Any = SimpleNamespace(**own | {name: own[name] + 1})
        assert Digests(tmp_path).known_or(path, other, lambda: "read again") == "read again", name


def test_what_changes_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    """The digest of a file that changes while it is read is not saved."""
    path = tmp_path / "file.json"
    path.write_bytes(b"abc")
    facts, known = path.stat(), Digests(tmp_path)

    def read() -> str:
        path.write_bytes(b"abcd")
        return "of something"

    assert known.known_or(path, facts, read) == "of something"
    known.remember()
    assert Digests(tmp_path).known_or(path, facts, lambda: "read again") == "read again"


def test_what_other_processes_have_remembered_is_kept(tmp_path: Path) -> None:
    """Two processes that share a cache keep each other's digests."""
    one, other = Digests(tmp_path), Digests(tmp_path)
    for known, name in ((one, "one.json"), (other, "other.json")):
        (tmp_path / name).write_text(name)
        known.of(tmp_path / name)
        known.remember()
    assert len(json.loads((tmp_path / "digests.json").read_text())) == 2


def test_a_digest_is_sha256(tmp_path: Path) -> None:
    """A digest is the file's plain SHA-256."""
    (tmp_path / "file.json").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Digests().of(tmp_path / "file.json") == expected


def test_a_host_that_does_not_name_its_run_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a boot id, files that are served are read again at each start."""
    monkeypatch.setattr(digests, "_BOOT", tmp_path / "nothing")
    path = tmp_path / "file.json"
    path.write_bytes(b"abc")
    known = Digests(tmp_path, since_boot=True)
    known.known_or(path, path.stat(), lambda: "of abc")
    known.remember()
    for since_boot in (True, False):
        again = Digests(tmp_path, since_boot=since_boot)
        assert again.known_or(path, path.stat(), lambda: "read again") == "read again"
