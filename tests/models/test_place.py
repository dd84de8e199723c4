"""What a path in the cache depends on: everything that determines what is written there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.host import read_host
from sidecar.models import place
from sidecar.models.place import cached_path
from sidecar.models.precision import Precision

INT8 = Precision("int8", weight_bits=7, floor=0.99)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Enough of a model to have a path in the cache."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_place_is_of_one_precision(folder: Path, tmp_path: Path) -> None:
    """Each part of a precision changes the path in the cache, the floor included."""
    precisions = [
        INT8, replace(INT8, quantization="int4"), replace(INT8, quantization="auto"),
        replace(INT8, weight_bits=8), replace(INT8, floor=0.995), replace(INT8, floor=0.99001),
    ]  # fmt: skip
    paths = {cached_path(folder, precision, tmp_path) for precision in precisions}
    assert len(paths) == len(precisions)
    assert cached_path(folder, replace(INT8), tmp_path) in paths


def test_a_place_is_of_one_processor(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's name and instructions change the path in the cache; its cores do not."""
    host = read_host()
    seen = []
    for other in (
        host, replace(host, cpu_model="another"), replace(host, isa=host.isa ^ {"avx_vnni"}),
    ):  # fmt: skip
        monkeypatch.setattr(place, "read_host", lambda other=other: other)
        seen.append(cached_path(folder, INT8, tmp_path))
    assert len(set(seen)) == 3
    larger = replace(host, cores=host.cores + 1, memory_bytes=2 * host.memory_bytes)
    monkeypatch.setattr(place, "read_host", lambda: larger)
    assert cached_path(folder, INT8, tmp_path) == seen[0]


def test_a_place_is_of_one_version(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The versions of the format, this package and the engine change the path in the cache."""
    seen = {cached_path(folder, INT8, tmp_path)}
    others: list[tuple[object, str, object]] = [
        (place, "FORMAT", 99), (place, "__version__", "0.0"),
        (place.runtime, "version", lambda: "0.0"),
    ]  # fmt: skip
    for owner, name, other in others:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, other)
            seen.add(cached_path(folder, INT8, tmp_path))
    assert len(seen) == 4


def test_a_place_is_found_by_what_the_files_hold(folder: Path, tmp_path: Path) -> None:
    """A copied folder finds the original's artifact if there is one; else it has its own path."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first = cached_path(folder, INT8, tmp_path / "cache")
    assert first.name.startswith("model-int8-")
    second = cached_path(copy, INT8, tmp_path / "cache")
    assert second.name == first.name.replace("model", "copy")
    first.mkdir(parents=True)
    assert cached_path(copy, INT8, tmp_path / "cache") == second  # no artifact yet
    (first / "manifest.json").write_text("{}")
    assert cached_path(copy, INT8, tmp_path / "cache") == first
    (copy / "config.json").write_text("{ }")
    assert cached_path(copy, INT8, tmp_path / "cache").name.startswith("copy-")


def test_of_two_artifacts_of_a_model_the_first_by_name_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    """Of several artifacts of one model, all daemons use the first by name."""
    cache = tmp_path / "cache"
    name = cached_path(folder, INT8, cache).name
    places = [cache / name.replace("model", other) for other in ("b", "a", "c")]
    for made in places:
        made.mkdir(parents=True)
        (made / "manifest.json").write_text("{}")
    assert cached_path(folder, INT8, cache) == places[1]


@pytest.mark.parametrize("remember", [True, False])
def test_digests_are_remembered_where_they_may_be(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remember: bool
) -> None:
    """Digests are saved only if `remember` is set, so that a read-only command writes nothing."""
    from sidecar.models import digests

    monkeypatch.setattr(digests, "_SETTLED_NS", -(10**10))
    cached_path(folder, INT8, tmp_path / "cache", remember=remember)
    assert (tmp_path / "cache" / "digests.json").exists() == remember
