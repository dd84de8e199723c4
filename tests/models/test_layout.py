"""Artifacts prepacked for this processor, and rows computed on several threads."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from sidecar.host import read_host
from sidecar.models import layout as layouts
from sidecar.models import model as models
from sidecar.models.errors import DamagedError
from sidecar.models.layout import Layout, layout_anew, layout_of
from sidecar.models.library import Wanted, open_model
from sidecar.models.manifest import GRAPH, TOKENIZER, WEIGHTS, Speed
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.tokenizer import Tokenizer

MakeModel = Callable[..., Path]


# Few: how close the model is does not matter here.
TEXTS = ("copper", "how do I renew a passport", "copper conducts heat " * 30)
ArtifactOf = Callable[..., Path]


@pytest.fixture(scope="module")
def artifact_of(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> ArtifactOf:
    """Return a function that writes a small model's artifact, prepared only once."""
    made: dict[str, Path] = {}

    def write(
        output: Path, quantization: str = "int8", family: str = "bert", **changes: Any
    ) -> Path:
        what = f"{quantization} {family} {changes}"
        if what not in made:
            made[what] = tmp_path_factory.mktemp("made") / "artifact"
            precision = Precision(quantization, weight_bits=7, floor=-1)
            folder = make_model(family, **changes)
            prepare(
                PrepareRequest(
                    folder=folder, name="tiny", precision=precision, output=made[what], texts=TEXTS
                )
            )
        return Path(shutil.copytree(made[what], output, dirs_exist_ok=True))

    return write


def row_of(tokens: int) -> Row:
    ids = np.random.default_rng(tokens).integers(5, 90, tokens)
    return Row(ids, np.zeros_like(ids), truncated=False)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_threads_that_share_a_row_give_its_bytes(
    artifact_of: ArtifactOf, tmp_path: Path, family: str, quantization: str
) -> None:
    """A row has the same bytes at any length, prepacked or not, on one thread or several."""
    artifact = artifact_of(tmp_path / "artifact", quantization, family)
    layout = layout_of(artifact, tmp_path, threads=2)
    plain = load(artifact)
    several = [load(artifact, replace(layout, threads=threads)) for threads in (2, 3)]
    for tokens in (1, 2, 7, 16, 33, plain.max_tokens):
        row = row_of(tokens)
        expected = plain.forward(row).tobytes()
        for model in several:
            assert model.forward(row).tobytes() == expected
            assert model.forward_parallel(row).tobytes() == expected


def test_layout_is_made_once(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """A layout is built once and found again; another number of threads has its own."""
    artifact = artifact_of(tmp_path / "artifact")
    made = layout_of(artifact, tmp_path, threads=2)
    written = made.graph.stat().st_mtime_ns
    assert layout_of(artifact, tmp_path, threads=2) == made
    assert made.graph.stat().st_mtime_ns == written
    assert layout_of(artifact, tmp_path, threads=1).graph != made.graph
    assert not list(tmp_path.glob(".*"))


def test_another_artifact_of_the_same_name_is_laid_out_anew(
    artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    """An artifact that is prepared again under the same name gets a new layout."""
    artifact = artifact_of(tmp_path / "artifact")
    first = layout_of(artifact, tmp_path, threads=2)
    artifact_of(artifact, num_hidden_layers=3)
    assert layout_of(artifact, tmp_path, threads=2).graph != first.graph


def test_layout_that_is_not_whole_is_made_anew(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """A layout that is truncated, as by a full disk, is rebuilt."""
    artifact = artifact_of(tmp_path / "artifact")
    layout = layout_of(artifact, tmp_path, threads=2)
    expected = load(artifact, layout).forward(row_of(9)).tobytes()
    (weights,) = layout.graph.parent.glob("*.data")
    weights.write_bytes(weights.read_bytes()[:-4096])
    again = layout_of(artifact, tmp_path, threads=2)
    assert load(artifact, again).forward(row_of(9)).tobytes() == expected


def test_layouts_that_nobody_opens_are_swept(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """Building a layout removes those not opened for a month; one opened since stays."""
    artifact = artifact_of(tmp_path / "artifact")
    old, used = (layout_of(artifact, tmp_path, threads).graph.parent for threads in (2, 3))
    for folder in (old, used):
        os.utime(folder / "layout.json", (0, 0))
    layout_of(artifact, tmp_path, threads=3)
    own = layout_of(artifact, tmp_path, threads=1).graph.parent
    assert set(tmp_path.glob("artifact-layout-*")) == {used, own}


def test_four_bits_are_mapped_from_the_artifact(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """An int4 artifact has no other layout than the one that it is stored in."""
    artifact = artifact_of(tmp_path / "artifact", "int4")
    assert layout_of(artifact, tmp_path, threads=2).graph == artifact / GRAPH


def test_cache_that_cannot_be_written_costs_a_warning(
    artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    """If the cache cannot be written, the artifact itself serves on one thread per row."""
    artifact = artifact_of(tmp_path / "artifact")
    (tmp_path / "cache").write_text("a file")
    precision = Precision("int8", weight_bits=7, floor=0.5)
    wanted = Wanted(name=str(artifact), task="embed", precision=precision, reason="", threads=2)
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted, tmp_path / "cache")
    (failed,) = [event for event in events if event["event"] == "model.layout_failed"]
    assert "cache" in failed["reason"]
    assert model.intra_op_threads == 1
    assert layout_of(artifact, tmp_path / "cache", threads=2) == Layout(artifact / GRAPH)


@pytest.mark.parametrize(("threads", "made"), [(1, [1]), (2, [1, 2]), (4, [1, 4])])
def test_a_row_alone_is_computed_on_the_layouts_threads(
    artifact_of: ArtifactOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    made: list[int],
) -> None:
    """By a session of its own where there are several; rows beside others are on one."""
    artifact = artifact_of(tmp_path / "artifact")
    asked: list[int] = []
    ran: list[int] = []

    def session(graph: Path, quantization: str, threads: int = 1) -> Any:
        asked.append(threads)
        return threads

    monkeypatch.setattr(models, "session_of", session)
    monkeypatch.setattr(models, "forward", lambda session, *_: ran.append(session))
    model = load(artifact, Layout(artifact / GRAPH, threads=threads))
    model.forward(row_of(3))
    model.forward_parallel(row_of(3))
    assert asked == made
    assert ran == [1, threads]
    assert model.intra_op_threads == threads


@pytest.mark.parametrize(
    ("one", "many", "threads"),
    [
        ((1.15, 2.3), (1.0, 2.0), 2),  # just enough, at both lengths
        ((1.14, 4.0), (1.0, 2.0), 1),
        ((2.0, 2.29), (1.0, 2.0), 1),
        ((1.0, 1.0), (2.0, 2.0), 1),
        ((5.0, 9.0), (2.0, 3.0), 2),
    ],
)
def test_threads_are_taken_where_both_lengths_gain(
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    one: tuple[float, float],
    many: tuple[float, float],
    threads: int,
) -> None:
    """More threads are used only if a query and a paragraph both gain at least 15 %.

    The measurements are reported in any case.
    """
    measured = {"1 thread": Speed(*one, mixed_ms=9), "2 threads": Speed(*many, mixed_ms=1)}
    asked: list[Any] = []

    def measure(sessions: Any, rows: list[Row], typical: object) -> Any:
        asked.append(([row.tokens for row in rows], typical))
        return {name: measured[name] for name in sessions}

    monkeypatch.setattr(layouts, "measure_speed", measure)
    layout = layout_of(tiny_artifact, tmp_path, threads=2)
    assert (layout.threads, layout.speed) == (threads, measured)
    ((lengths, typical),) = asked
    assert typical is min  # other load on the host must not decide
    tokenizer = Tokenizer(tiny_artifact / TOKENIZER, 98)
    there = [row.tokens for row in tokenizer.rows(probe_inputs("embed"))]
    assert lengths == [min(there, key=lambda each: abs(each - wish)) for wish in (12, 96)]
    alone = layout_of(tiny_artifact, tmp_path, threads=1)
    assert (alone.threads, set(alone.speed)) == (1, {"1 thread"})


def test_a_layout_is_of_one_processor_and_one_engine(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout depends on the processor and the engine, and not on the number of cores."""
    host, seen = read_host(), []
    for other in (
        host, replace(host, cpu_model="another"), replace(host, isa=host.isa ^ {"avx_vnni"}),
        replace(host, cores=host.cores + 1),
    ):  # fmt: skip
        monkeypatch.setattr(layouts, "read_host", lambda other=other: other)
        seen.append(layouts._key(tiny_artifact, 2))
    monkeypatch.setattr(layouts.runtime, "version", lambda: "0.0")
    seen.append(layouts._key(tiny_artifact, 2))
    monkeypatch.setattr(layouts, "_FORMAT", 0)
    seen.append(layouts._key(tiny_artifact, 2))
    assert seen[3] == seen[0]
    assert len(set(seen)) == len(seen) - 1


def test_a_layout_that_computes_other_bytes_is_not_served(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout that computes other bytes than the artifact is not served; the artifact is."""
    lay_out = layouts.runtime.lay_out

    def wrongly(graph: Path, to: Path) -> None:
        lay_out(graph, to)
        weights = to.with_name(WEIGHTS)
        content = weights.read_bytes()
        weights.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))

    monkeypatch.setattr(layouts.runtime, "lay_out", wrongly)
    with structlog.testing.capture_logs() as events:
        layout = layout_of(tiny_artifact, tmp_path, threads=1)
    assert layout == Layout(tiny_artifact / GRAPH)
    (event,) = events
    assert event["event"] == "model.layout_failed"
    assert "same bytes" in event["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_layouts_of_others_are_not_swept(tiny_artifact: Path, tmp_path: Path) -> None:
    """Another user's layouts are not removed, however old, even by root."""
    old = layout_of(tiny_artifact, tmp_path, threads=2).graph.parent
    os.utime(old / "layout.json", (0, 0))
    os.chown(old, 61_235, 61_235)
    layout_of(tiny_artifact, tmp_path, threads=1)
    assert old.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["", "layout.json"])
def test_a_layout_of_others_is_not_served(tiny_artifact: Path, tmp_path: Path, what: str) -> None:
    """If others own or may write to a layout, the artifact's own graph is served instead."""
    folder = layout_of(tiny_artifact, tmp_path, threads=1).graph.parent
    for spoil in (lambda path: os.chown(path, 61_235, 61_235), lambda path: path.chmod(0o777)):
        facts = (folder / what).stat()
        spoil(folder / what)
        with structlog.testing.capture_logs() as events:
            assert layout_of(tiny_artifact, tmp_path, threads=1) == Layout(tiny_artifact / GRAPH)
        (event,) = events
        assert "belongs to" in event["reason"]
        os.chown(folder / what, facts.st_uid, facts.st_gid)
        (folder / what).chmod(facts.st_mode & 0o777)
    assert layout_of(tiny_artifact, tmp_path, threads=1).graph.parent == folder


def test_what_is_whole_by_now_is_not_laid_out_again(tiny_artifact: Path, tmp_path: Path) -> None:
    """A layout that another daemon has repaired meanwhile is not built again.

    One that is still damaged is; damage to the artifact itself is raised.
    """
    layout = layout_of(tiny_artifact, tmp_path, threads=1)
    made = layout.graph.stat().st_ino
    damage = DamagedError(layout.graph, "was something else")
    assert layout_anew(tiny_artifact, tmp_path, 1, damage) == layout
    assert layout.graph.stat().st_ino == made
    flipped = layout.graph.read_bytes()[::-1]
    layout.graph.write_bytes(flipped)
    assert layout_anew(tiny_artifact, tmp_path, 1, damage).graph == layout.graph
    assert layout.graph.read_bytes() != flipped
    with pytest.raises(DamagedError):
        layout_anew(tiny_artifact, tmp_path, 1, DamagedError(tiny_artifact / GRAPH, "is another"))


def test_drafts_of_the_killed_are_swept_before_another(tiny_artifact: Path, tmp_path: Path) -> None:
    """Drafts left by killed processes are swept before another layout is built."""
    folder = layout_of(tiny_artifact, tmp_path, threads=1).graph.parent
    folder.rename(tmp_path / f".{folder.name}.draft-0123456789abcdef")
    layout_of(tiny_artifact, tmp_path, threads=1)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]
