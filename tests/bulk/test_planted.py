"""`sidecar embed` in a folder that others may write to: planted files do no harm."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.cli import main

from ..others import KINDS, contents, no_hang, plant, shared, takes_root
from .world import FakeDaemon, vector

TEXTS = ["one", "two", "three"]
INSIDE = ("note.json", "note.new", "vectors.npy", "table.parquet")
# What exists at OUT.part: nothing, a folder left by our own earlier run, or something planted.
PARTS = ["none", "own", "open to all", "open to a group", *KINDS]


def make_part(kind: str, part: Path, outside: Path) -> bool:
    """Create `kind` at `part`; return whether it is a folder in which more can be planted."""
    if kind == "none":
        return False
    if kind in KINDS:
        plant(kind, part, outside)
        return False
    part.mkdir()
    part.chmod({"own": 0o700, "open to all": 0o777, "open to a group": 0o770}[kind])
    return True


def embed(fake: FakeDaemon, folder: Path, *flags: str, output: str = "out.npy") -> int:
    corpus = fake.socket.with_name("corpus.txt")
    corpus.write_text("\n".join(TEXTS) + "\n")
    words = [str(corpus), "-o", str(folder / output)]
    with no_hang():
        return main(["embed", *words, "--socket", str(fake.socket), *flags])


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    part=st.sampled_from(PARTS),
    inside=st.dictionaries(st.sampled_from((*INSIDE, "other")), st.sampled_from(KINDS)),
    output=st.sampled_from(["none", *KINDS]),
    suffix=st.sampled_from([".npy", ".parquet"]),
    overwrite=st.booleans(),
)
@example(part="link to a folder", inside={}, output="none", suffix=".npy", overwrite=True)
@example(part="own", inside={"note.json": "fifo"}, output="none", suffix=".npy", overwrite=False)
@example(part="own", inside={"note.new": "link"}, output="none", suffix=".npy", overwrite=False)
@example(part="own", inside={}, output="link", suffix=".parquet", overwrite=True)
def test_nothing_outside_the_folder_is_touched(
    fake: FakeDaemon,
    capsys: pytest.CaptureFixture[str],
    *,
    part: str,
    inside: dict[str, str],
    output: str,
    suffix: str,
    overwrite: bool,
) -> None:
    """Whatever is planted, the vectors are written or one line names what is in the way.

    Nothing blocks, and whatever is refused stays unchanged, as does everything outside.
    """
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with shared() as (folder, outside):
        out = folder / f"out{suffix}"
        own = out.with_name(out.name + ".part")
        if make_part(part, own, outside):
            for name, kind in inside.items():
                plant(kind, own / name, outside)
        if output != "none":
            plant(output, out, outside)
        before, planted = contents(outside), contents(folder)
        code = embed(fake, folder, *["--overwrite"] * overwrite, output=out.name)
        err = capsys.readouterr().err
        assert contents(outside) == before
        if code == 0:
            assert stat.S_ISREG(out.lstat().st_mode)
            assert out.lstat().st_uid == os.geteuid()
        else:
            assert code in {73, 78}
            assert err.startswith("sidecar: ")
            assert str(own) in err or str(out) in err
            kept = [own / name for name, kind in inside.items() if kind != "file"]
            kept = [out, *(path for path in kept if str(path) in planted)]
            after = contents(folder)
            for path in map(str, kept):
                assert after.get(path) == planted.get(path)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("vectors.npy", "link", "is a link owned by user 0 (root), not a file owned by you"),
        ("note.new", "dangling link", "is a link owned by user 0 (root), not a file owned by you"),
        ("note.json", "fifo", "is a FIFO owned by user 0 (root), not a file owned by you"),
        (
            "table.parquet",
            "folder",
            "is a directory owned by user 0 (root), not a file owned by you",
        ),
        ("vectors.npy", "hard link", "has another hard link elsewhere: remove it"),
        (
            "vectors.npy",
            "another's file",
            "is a file owned by user 65534 (nobody), not a file owned by you",
        ),
    ],
)
@takes_root
def test_what_is_in_the_way_is_named(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], name: str, kind: str, message: str
) -> None:
    """A planted file is named with its kind and owner, and is refused even with --overwrite."""
    with shared() as (folder, outside):
        own = folder / "out.npy.part"
        own.mkdir(mode=0o700)
        plant(kind, own / name, outside)
        assert embed(fake, folder, "--overwrite") == 78
        assert f"sidecar: {own / name} {message}" in capsys.readouterr().err


@takes_root
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "another's folder",
            "is a directory owned by user 65534 (nobody), not a directory owned by you",
        ),
        ("link to a folder", "is a link owned by user 0 (root), not a directory owned by you"),
        ("fifo", "is a FIFO owned by user 0 (root), not a directory owned by you"),
        ("open to all", "is writable by others: check what is in it"),
    ],
)
def test_a_folder_that_is_not_ours_alone_is_named(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    """An OUT.part that is not a private folder of ours is refused before anything is written."""
    with shared() as (folder, outside):
        part = folder / "out.npy.part"
        make_part(kind, part, outside)
        before = contents(folder)
        assert embed(fake, folder) == 78
        assert f"sidecar: {part} {message}" in capsys.readouterr().err
        assert contents(folder) == before


def test_a_link_at_the_output_is_there_already(fake: FakeDaemon) -> None:
    """A dangling symlink counts as an existing output; --overwrite replaces it, unfollowed."""
    with shared() as (folder, outside):
        plant("dangling link", folder / "out.npy", outside)
        assert embed(fake, folder) == 78
        assert embed(fake, folder, "--overwrite") == 0
        assert not (folder / "out.npy").is_symlink()
        assert (np.load(folder / "out.npy") == [vector(text) for text in TEXTS]).all()
        assert not (outside / "none").exists()


def test_a_folder_at_the_output_is_told_before_the_work(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory at the output is refused before the work, even with --overwrite."""
    with shared() as (folder, _):
        (folder / "out.npy").mkdir()
        assert embed(fake, folder, "--overwrite") == 73
        assert "out.npy is a directory: name a file" in capsys.readouterr().err
        assert fake.seen == []


def test_the_folder_is_closed_to_others(fake: FakeDaemon) -> None:
    """OUT.part is private whatever the umask, and the output's mode follows the umask."""
    seen: list[int] = []
    with shared() as (folder, _):
        script = fake.script

        def look(request: object) -> object:
            part = folder / "out.npy.part"
            if part.exists():
                seen.append(stat.S_IMODE(part.stat().st_mode))
            return script(request)  # type: ignore[arg-type]

        fake.script = look  # type: ignore[assignment]
        before = os.umask(0)
        try:
            assert embed(fake, folder) == 0
        finally:
            os.umask(before)
        assert set(seen) == {0o700}
        assert stat.S_IMODE((folder / "out.npy").stat().st_mode) == 0o666


@takes_root
def test_a_name_of_many_lines_is_told_on_one(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name with newlines or escape sequences is printed escaped, on one line."""
    with shared() as (folder, outside):
        nasty = "out\n\x1b[31mok.npy"
        plant("another's folder", folder / f"{nasty}.part", outside)
        assert embed(fake, folder, output=nasty) == 78
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "\x1b" not in err
