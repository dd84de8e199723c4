"""Which drafts are removed and which are not, and that nothing else is ever touched."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.models.drafts import clear, draft_of, put, put_first, sweep
from sidecar.models.durable import make_folder, replace_text

_HEX = "0123456789abcdef"
NOBODY = 65534


def draft_named(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft-{_HEX}")


def planted(path: Path) -> Path:
    """Return a draft of `path` whose writer is gone."""
    draft = draft_named(path)
    draft.mkdir()
    (draft / "model.onnx").write_text("half")
    return draft


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Return a function that sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_draft_of_the_killed_is_swept(tmp_path: Path) -> None:
    """The draft of a killed process is swept, since no process holds its lock."""
    draft = planted(tmp_path / "out")
    sweep(tmp_path / "out")
    assert not draft.exists()


def test_a_draft_that_is_written_is_left_alone(tmp_path: Path) -> None:
    """A draft that is being written is left alone: its lock, not a process id, protects it."""
    code = (
        "import sys; from pathlib import Path; from sidecar.models.drafts import draft_of\n"
        "with draft_of(Path(sys.argv[1])) as draft:\n"
        "    print(draft, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "out"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        draft = Path(writer.stdout.readline().strip())
        sweep(tmp_path / "out")
        assert draft.is_dir()
        writer.kill()
        writer.wait()
        sweep(tmp_path / "out")
        assert not draft.exists()


def test_a_lock_that_another_program_holds_is_respected(tmp_path: Path) -> None:
    """A draft that another program has locked is left alone."""
    draft = planted(tmp_path / "out")
    lock = os.open(draft, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sweep(tmp_path / "out")
    os.close(lock)
    assert draft.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_draft_is_left_alone(tmp_path: Path) -> None:
    """Another user's draft is left alone, though root could remove it."""
    draft = planted(tmp_path / "out")
    os.chown(draft, NOBODY, NOBODY)
    sweep(tmp_path / "out")
    assert draft.is_dir()


@pytest.mark.parametrize("name", ["out", "o*t", "[out]", "o?t", "out.draft-1", ".", "a b\nc"])
def test_nothing_but_drafts_is_ever_touched(tmp_path: Path, name: str) -> None:
    """Links, files and folders of other names survive a draft's whole life."""
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    cache.mkdir()
    output = cache / name if name != "." else cache / "..out"
    draft_named(output).symlink_to(elsewhere, target_is_directory=True)
    draft_named(output).with_name(f".{output.name}.draft-{_HEX[::-1]}").write_text("a file")
    for other in (
        ".out.1234", ".oot.draft-" + _HEX, ".out.draft-notes", f".out.draft-{_HEX}0", "out.draft",
        f".{output.name}.draft-{_HEX.upper()}", f"x.{output.name}.draft-{_HEX}",
    ):  # fmt: skip
        (cache / other).mkdir(exist_ok=True)
        (cache / other / "file").write_text("mine")
    before = seen(tmp_path)
    sweep(output)
    with draft_of(output) as draft:
        (draft / "model.onnx").write_text("whole")
        (draft / "link").symlink_to(elsewhere / "file")
        sweep(output)
        assert draft.is_dir()
    assert seen(tmp_path) == before
    with draft_of(output) as draft:
        (draft / "model.onnx").write_text("whole")
        put(draft, output)
    clear(output)
    assert seen(tmp_path) == before


def seen(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the mode and contents of everything in a folder."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, _content(path))
        for path in folder.rglob("*")
    }


def _content(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_text() if path.is_file() else ""


def test_two_who_write_the_same_do_not_meet(tmp_path: Path) -> None:
    """Of two writers of a path, the later one replaces the earlier result, or discards its own."""
    output = tmp_path / "out"
    with draft_of(output) as one, draft_of(output) as two, draft_of(output) as three:
        for number, draft in enumerate((one, two, three)):
            (draft / "file").write_text(str(number))
        put(one, output)
        put(two, output)
        assert (output / "file").read_text() == "1"
        put_first(three, output)
        assert (output / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("step", ["open", "flock"])
def test_a_signal_while_a_draft_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A process that is told to end right after it made the folder removes it."""

    owner: Any = os if step == "open" else fcntl
    real, ended = getattr(owner, step), []

    def ended_once(*args: Any, **options: Any) -> Any:
        if not ended:
            ended.extend(tmp_path.iterdir())
            raise SystemExit
        return real(*args, **options)

    monkeypatch.setattr(owner, step, ended_once)
    with pytest.raises(SystemExit), draft_of(tmp_path / "out"):
        pass
    assert len(ended) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", ["open", "flock"])
def test_a_draft_that_another_process_sweeps_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A draft that is swept before it is locked is replaced by another."""
    swept: list[Path] = []
    owner: Any = os if before == "open" else fcntl
    step = getattr(owner, before)

    def late(*args: Any, **options: Any) -> Any:
        found = list(tmp_path.glob(".out.draft-*"))
        if found and not swept:
            swept.extend(found)
            found[0].rmdir()
        return step(*args, **options)

    monkeypatch.setattr(owner, before, late)
    with draft_of(tmp_path / "out") as draft:
        assert draft.is_dir()
        assert swept
        assert draft not in swept


@pytest.mark.parametrize("place", [put, put_first])
def test_what_is_seen_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path, Path], None]
) -> None:
    """Each file is synced, then the folder, which is then renamed, then its parent folder."""
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recorded_fsync(file: int) -> None:
        steps.append(Path(f"/proc/self/fd/{file}").readlink().name)
        fsync(file)

    def recorded_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    with draft_of(tmp_path / "out") as draft:
        for name in ("model.onnx", "manifest.json"):
            (draft / name).write_text(name)
        place(draft, tmp_path / "out")
    assert set(steps[:2]) == {"model.onnx", "manifest.json"}
    assert steps[2:] == [draft.name, "rename", tmp_path.name]


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_nobody_else_can_write_what_was_made(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    """What is created is writable only by its owner, within what the umask allows."""
    umask(mask)
    output = tmp_path / "cache" / "sidecar" / "out"
    make_folder(output.parent)
    with draft_of(output) as draft:
        (draft / "model.onnx").write_text("")
        put(draft, output)
    replace_text(output.parent / "digests.json", "{}")
    for path in (tmp_path / "cache").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644) & ~mask


def test_a_text_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Replacing a text replaces a symbolic link in its place, and leaves the link's target."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "digests.json").symlink_to(tmp_path / "mine")
    replace_text(tmp_path / "digests.json", "{}")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "digests.json").is_symlink()


def test_a_text_that_cannot_be_put_leaves_no_draft(tmp_path: Path) -> None:
    """A text that cannot be written leaves what is in its place, and no draft."""
    (tmp_path / "digests.json").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_text(tmp_path / "digests.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["digests.json"]


def test_what_is_cleared_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is renamed before it is removed, so that no one finds part of it."""
    folder, removed = tmp_path / "out", []
    folder.mkdir()
    (folder / "file").write_text("")
    rmtree = shutil.rmtree

    def recorded(path: Path, **options: Any) -> None:
        removed.append(folder.exists())
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", recorded)
    clear(folder)
    assert removed == [False]
    assert list(tmp_path.iterdir()) == []
