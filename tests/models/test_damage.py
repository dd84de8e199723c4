"""Whatever happens to the files of an artifact or a layout, only what was written is served."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from tokenizers import Tokenizer

from sidecar.models import digests, intact
from sidecar.models import manifest as manifests
from sidecar.models.damage import check_artifact, set_aside
from sidecar.models.errors import DamagedError, ModelError, UntrustedError
from sidecar.models.intact import Stored, check, checked_meanwhile, record
from sidecar.models.layout import layout_anew
from sidecar.models.library import Wanted, open_model, with_artifact
from sidecar.models.manifest import Manifest
from sidecar.models.model import Model, load
from sidecar.models.precision import Precision

from ..later import Later
from ..words import WORDS, with_few_words

pytestmark = pytest.mark.slow

SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")
StaticEmbedding = Later("sentence_transformers.sentence_transformer.modules", "StaticEmbedding")

NOBODY = 65534
FILES = ("manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json")
FP32 = Precision("none", weight_bits=7, floor=0)


@pytest.fixture(scope="module")
def folder(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is prepared quickly; its weights are large enough to be read on a thread."""
    tokenizer = Tokenizer.from_str(with_few_words(minilm_folder / "tokenizer.json"))
    table = np.random.default_rng(5).standard_normal((WORDS, 300)).astype(np.float32)
    folder = tmp_path_factory.mktemp("static") / "static"
    first = StaticEmbedding(tokenizer, embedding_weights=table)
    SentenceTransformer(modules=[first], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the model's artifact and layout."""
    cache = tmp_path_factory.mktemp("prepared") / "cache"
    open_model(wanted(folder), cache)
    return cache


@pytest.fixture
def cache(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "cache"))


@pytest.fixture(scope="module")
def expected(folder: Path, prepared: Path) -> bytes:
    return vector(open_model(wanted(folder), prepared))


def wanted(folder: Path) -> Wanted:
    return Wanted(name=str(folder), task="embed", precision=FP32, reason="a test")


def vector(model: object) -> bytes:
    assert isinstance(model, Model)
    return model.forward(model.tokenize(["copper conducts heat"])[0]).tobytes()


def artifact_in(cache: Path) -> Path:
    (manifest,) = cache.glob("*/manifest.json")
    return manifest.parent


def layout_in(cache: Path) -> Path:
    (note,) = cache.glob("*/layout.json")
    return note.parent


def opened(folder: Path, cache: Path) -> tuple[bytes, list[dict[str, object]], list[str]]:
    """Open the model; return one of its vectors, the damage events, and the names of all events."""
    with structlog.testing.capture_logs() as events:
        made = vector(open_model(wanted(folder), cache))
    damage = [dict(event) for event in events if event["event"] == "model.damaged"]
    return made, damage, [event["event"] for event in events]


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


Damage = Callable[[Path], None]
DAMAGE: list[Damage] = [zero, flip, cut, lengthen, Path.unlink, to_folder, to_pipe]


def damaged(*names: str, but: Collection[tuple[str, Damage]] = ()) -> list[Any]:
    """Return every kind of damage to each file, as parameters for a test."""
    return [
        pytest.param(name, damage, id=f"{name}-{damage.__name__}")
        for name in names
        for damage in DAMAGE
        if (name, damage) not in but
    ]


@pytest.mark.parametrize(("name", "damage"), damaged(*FILES, but={("manifest.json", lengthen)}))
def test_a_damaged_artifact_in_the_cache_is_prepared_again(
    folder: Path, cache: Path, expected: bytes, name: str, damage: Damage
) -> None:
    """Any damage to an artifact in the cache is logged, and it is set aside and prepared again."""
    artifact = artifact_in(cache)
    damage(artifact / name)
    made, damage_events, names = opened(folder, cache)
    assert made == expected
    (event,) = damage_events
    assert event["path"] == str(artifact / name)
    assert event["reason"]
    assert event["aside"] == f"{artifact}.damaged"
    assert Path(str(event["aside"])).is_dir()
    assert "model.prepared" in names
    check_artifact(artifact)
    assert opened(folder, cache)[2].count("model.prepared") == 0


@pytest.mark.parametrize(("name", "damage"), damaged(*FILES[1:]))
def test_a_damaged_artifact_that_was_named_is_refused(
    prepared: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    """A damaged artifact that the user named is refused with one line of advice, and stays."""
    artifact = Path(shutil.copytree(artifact_in(prepared), tmp_path / "artifact"))
    damage(artifact / name)
    with pytest.raises(DamagedError, match=rf"{name} .*`sidecar prepare`") as caught:
        open_model(wanted(artifact), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert {path.name for path in artifact.iterdir()} == {*FILES} - (
        {name} if damage is Path.unlink else set()
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    # Whitespace after JSON changes nothing.
    damaged("layout.json", "model.onnx", "model.onnx.data", but={("layout.json", lengthen)}),
)
def test_a_damaged_layout_is_made_anew(
    folder: Path, cache: Path, expected: bytes, name: str, damage: Damage
) -> None:
    """A damaged layout is rebuilt from the artifact, which stays; an event says why."""
    layout = layout_in(cache)
    damage(layout / name)
    made, damage_events, names = opened(folder, cache)
    assert made == expected
    (event,) = damage_events
    assert (event["path"], event["aside"]) == (str(layout / name), None)
    assert not {"model.prepared", "model.layout_failed"}.intersection(names)
    assert layout_in(cache) == layout
    assert opened(folder, cache)[1] == []


def test_a_layout_is_not_made_of_what_is_damaged(
    folder: Path, cache: Path, expected: bytes
) -> None:
    """A layout is not built from damaged weights, which would then be trusted for good."""
    shutil.rmtree(layout_in(cache))
    zero(artifact_in(cache) / "model.onnx.data")
    made, damage_events, _ = opened(folder, cache)
    assert made == expected
    assert len(damage_events) == 1


def test_weights_of_another_model_are_noticed(folder: Path, cache: Path, tmp_path: Path) -> None:
    """Weights of another model are noticed, even if their size and the manifest are right."""
    artifact = artifact_in(cache)
    weights = np.frombuffer((artifact / "model.onnx.data").read_bytes(), np.float32)
    (artifact / "model.onnx.data").write_bytes(weights[::-1].tobytes())
    with pytest.raises(DamagedError, match="does not match its recorded SHA-256"):
        load(artifact)
    with pytest.raises(DamagedError):
        check_artifact(artifact)


def test_a_manifest_that_was_edited_is_noticed(prepared: Path, tmp_path: Path) -> None:
    """A manifest that was edited is noticed, even if it is still readable."""
    artifact = Path(shutil.copytree(artifact_in(prepared), tmp_path / "artifact"))
    fields = json.loads((artifact / "manifest.json").read_text())
    fields["files"]["model.onnx.data"]["sha256"] = "0" * 64
    (artifact / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(DamagedError, match=r"manifest\.json does not match"):
        load(artifact)


def test_an_older_damaged_one_makes_room(cache: Path) -> None:
    """Only the last artifact that was set aside is kept for inspection."""
    artifact = artifact_in(cache)
    older = artifact.with_name(f"{artifact.name}.damaged")
    older.mkdir()
    (older / "old").write_text("")
    cut(artifact / "tokenizer.json")
    assert set_aside(artifact) == older
    assert not (older / "old").exists()
    assert (older / "model.onnx").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_not_ours_is_not_removed_to_make_room(
    cache: Path, tmp_path: Path, kind: str
) -> None:
    """A link or a file that keeps an artifact from being set aside is named, and stays."""
    artifact, mine = artifact_in(cache), tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("")
    aside = artifact.with_name(f"{artifact.name}.damaged")
    if kind == "link":
        aside.symlink_to(mine)
    else:
        aside.write_text("")
    cut(artifact / "tokenizer.json")
    with pytest.raises(ModelError, match="cannot be renamed"):
        set_aside(artifact)
    assert (mine / "file").exists()
    assert aside.is_symlink() == (kind == "link")


def test_what_is_whole_by_now_is_not_set_aside(cache: Path) -> None:
    """An artifact that another daemon has repaired or removed meanwhile is not set aside."""
    artifact = artifact_in(cache)
    assert set_aside(artifact) is None
    check_artifact(artifact)
    shutil.rmtree(artifact)
    assert set_aside(artifact) is None


def test_an_artifact_that_goes_while_it_is_read_is_set_aside_by_nobody(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact that another daemon moves away while it is read is not set aside again."""
    artifact, read = artifact_in(cache), manifests.read

    def read_and_lose(folder: Path) -> Manifest:
        manifest = read(folder)
        shutil.rmtree(folder)
        return manifest

    monkeypatch.setattr(manifests, "read", read_and_lose)
    assert set_aside(artifact) is None


def test_what_another_daemon_has_put_right_is_not_told(folder: Path, cache: Path) -> None:
    """Damage that another daemon has repaired meanwhile is not logged again."""
    artifact = artifact_in(cache)
    asked: list[Path] = []

    def use(_: Path, found: Path) -> str:
        asked.append(found)
        if len(asked) == 1:
            raise DamagedError(found / "model.onnx", "has other bytes")
        return "served"

    with structlog.testing.capture_logs() as events:
        assert with_artifact(wanted(folder), cache, use) == "served"
    assert asked == [artifact, artifact]
    assert events == []


def test_a_cache_is_not_what_is_damaged(cache: Path) -> None:
    """A missing artifact is reported by one of its own files; its neighbours are not touched."""
    neighbour = cache / "neighbour"
    neighbour.mkdir()
    manifest = manifests.read(artifact_in(cache))
    gone = cache / "gone"
    with pytest.raises(DamagedError, match="is missing") as caught:
        check(gone, manifest.files)
    assert caught.value.path.parent == gone
    for damage in (caught.value, DamagedError(gone, "is missing")):
        with pytest.raises(DamagedError):
            layout_anew(gone, cache, 1, damage)
    assert neighbour.is_dir()
    artifact = artifact_in(cache)
    (artifact / "manifest.json").unlink()
    with pytest.raises(DamagedError, match=r"manifest\.json is missing"):
        load(artifact, manifest=manifest)


def test_daemons_that_share_a_damaged_cache_all_serve(
    folder: Path, cache: Path, expected: bytes
) -> None:
    """Daemons that share a damaged cache repair it at the same time, and all of them serve."""
    zero(artifact_in(cache) / "model.onnx.data")
    zero(layout_in(cache) / "model.onnx.data")
    made: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: made.append(vector(open_model(wanted(folder), cache))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [expected] * 4
    assert not list(cache.glob(".*.draft-*"))


def test_a_start_with_a_damaged_artifact_is_one_line(prepared: Path, tmp_path: Path) -> None:
    """A damaged artifact ends a start with one line and exit code 78, so systemd does not retry."""
    artifact = Path(shutil.copytree(artifact_in(prepared), tmp_path / "artifact"))
    cut(artifact / "model.onnx.data")
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve", "--embedding-model", str(artifact),
         "--use-quantization", "false", "--socket", str(tmp_path / "s"),
         "--cache-dir", str(tmp_path / "cache"), "--log-level", "error"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SIDECAR_DEVICE": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert "model.onnx.data has" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["cache", "artifact", *FILES])
def test_what_another_user_owns_is_not_served(folder: Path, cache: Path, what: str) -> None:
    """A cached folder or file that another user owns is refused, neither served nor moved."""
    artifact = artifact_in(cache)
    path = {"cache": cache, "artifact": artifact}.get(what, artifact / what)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(UntrustedError, match=rf"{path.name} belongs to user nobody \(65534\)"):
        open_model(wanted(folder), cache)
    assert artifact.is_dir()


@pytest.mark.parametrize("what", ["cache", "artifact", *FILES])
def test_what_others_may_write_to_is_not_served(folder: Path, cache: Path, what: str) -> None:
    """A cached folder or file that others may write to is refused, whoever owns it."""
    artifact = artifact_in(cache)
    path = {"cache": cache, "artifact": artifact}.get(what, artifact / what)
    path.chmod(0o777)
    with (
        structlog.testing.capture_logs() as events,
        pytest.raises(UntrustedError, match=rf"{path.name} belongs to .* mode 0777"),
    ):
        open_model(wanted(folder), cache)
    assert not [event for event in events if event["log_level"] == "warning"]


def test_a_cache_of_others_is_not_used_for_layouts(prepared: Path, tmp_path: Path) -> None:
    """If others may write to the cache, it gets no layout, and an event says why."""
    artifact = Path(shutil.copytree(artifact_in(prepared), tmp_path / "artifact"))
    open_cache = tmp_path / "cache"
    open_cache.mkdir()
    open_cache.chmod(0o777)
    _, _, names = opened(artifact, open_cache)
    assert "model.layout_failed" in names
    assert list(open_cache.iterdir()) == []


def test_memories_of_others_are_not_believed(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved digests that others may write to are ignored: they could lead to another artifact."""
    (cache / "digests.json").chmod(0o666)
    assert digests.Digests(cache)._known == {}


def test_a_shipped_folder_of_links_is_served(
    folder: Path, prepared: Path, tmp_path: Path, expected: bytes
) -> None:
    """An artifact of symbolic links to blobs, as in the hub's cache, is checked and served."""
    artifact, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    shutil.copytree(artifact_in(prepared), blobs)
    artifact.mkdir()
    for name in FILES:
        (artifact / name).symlink_to(blobs / name)
    assert vector(open_model(wanted(artifact), tmp_path / "cache")) == expected
    zero(blobs / "model.onnx.data")
    with pytest.raises(DamagedError):
        open_model(wanted(artifact), tmp_path / "cache")


def test_what_serves_is_read_again_after_a_boot(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Served files are read again after a boot; within one, only if the kernel saw a change."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**10))
    read: list[str] = []
    sha256 = intact._sha256
    monkeypatch.setattr(
        intact,
        "_sha256",
        lambda file: (read.append(Path(f"/proc/self/fd/{file}").readlink().name), sha256(file))[1],
    )
    served = {"model.onnx", "model.onnx.data", "tokenizer.json"}
    opened(folder, cache)
    assert set(read) == served
    read.clear()
    opened(folder, cache)
    assert read == []
    weights = layout_in(cache) / "model.onnx.data"
    facts = weights.stat()
    zero(weights)
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert len(opened(folder, cache)[1]) == 1
    opened(folder, cache)
    read.clear()
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(digests, "_BOOT", tmp_path / "boot")
    opened(folder, cache)
    assert set(read) == served


def test_damage_is_told_before_what_it_led_to(tmp_path: Path) -> None:
    """Damage is reported instead of the engine's error that it caused."""
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    files = {"large": Stored(5 << 20, "0" * 64)}
    with pytest.raises(DamagedError), checked_meanwhile((tmp_path, files)):
        raise RuntimeError("the engine cannot read it")
    with (
        pytest.raises(RuntimeError, match="for a reason of its own"),
        checked_meanwhile((tmp_path, record(tmp_path))),
    ):
        raise RuntimeError("for a reason of its own")


@pytest.mark.parametrize(("size", "stated"), [(5, 5), (5 << 20, (5 << 20) + 1)])
def test_sizes_and_what_is_small_are_checked_before_it_is_loaded(
    tmp_path: Path, size: int, stated: int
) -> None:
    """Sizes and small files are checked before loading.

    A damaged graph would be parsed, and truncated weights would be mapped beyond their end.
    """
    (tmp_path / "file").write_bytes(bytes(size))
    reached = False
    with pytest.raises(DamagedError):  # noqa: SIM117 - the block is what is asked about
        with checked_meanwhile((tmp_path, {"file": Stored(stated, "0" * 64)})):
            reached = True
    assert not reached


def test_what_may_not_be_read_is_not_damaged(tmp_path: Path) -> None:
    """A file that this user may not read is not reported as damaged."""
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "file").chmod(0o600)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from sidecar.models.intact import Stored, check\n"
        "from sidecar.models.errors import DamagedError, ModelError\n"
        f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "else: Path('file').chmod(0)\n"
        "try: check(Path('.'), {'file': Stored(3, '')})\n"
        "except ModelError as error: print(type(error).__name__, error)"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("ModelError file cannot be read: Permission denied, for user")


def test_all_files_are_read_to_their_ends(tmp_path: Path) -> None:
    """Files of any size are read to their end, empty and large ones included."""
    for name, size in (("empty", 0), ("piece", 4 << 20), ("more", (8 << 20) + 1)):
        (tmp_path / name).write_bytes(os.urandom(size))
    files = record(tmp_path)
    check(tmp_path, files)
    for name in ("piece", "more"):
        flip(tmp_path / name)
        with pytest.raises(DamagedError, match=name):
            check(tmp_path, {name: files[name]})
