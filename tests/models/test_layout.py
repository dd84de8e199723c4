"""An artifact as it is laid out for this processor, and a row on more threads than one."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from sidecar.models.layout import Layout, layout_of
from sidecar.models.library import Wanted, open_model
from sidecar.models.manifest import GRAPH
from sidecar.models.model import load
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.rows import Row

MakeModel = Callable[..., Path]


# Few: how close the model comes is no matter here.
TEXTS = ("copper", "how do I renew a passport", "copper conducts heat " * 30)
ArtifactOf = Callable[..., Path]


@pytest.fixture(scope="module")
def artifact_of(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> ArtifactOf:
    """Return what writes a small model's artifact; it is prepared once."""
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
                Order(
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
    """At any length, laid out or not, on one thread and on several."""
    artifact = artifact_of(tmp_path / "artifact", quantization, family)
    layout = layout_of(artifact, tmp_path, threads=2)
    plain = load(artifact)
    several = [load(artifact, replace(layout, threads=threads)) for threads in (2, 3)]
    for tokens in (1, 2, 7, 16, 33, plain.max_tokens):
        row = row_of(tokens)
        expected = plain.forward(row).tobytes()
        for model in several:
            assert model.forward(row).tobytes() == expected
            assert model.forward_alone(row).tobytes() == expected


def test_layout_is_made_once(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """The next one to ask finds it; another number of threads has one of its own."""
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
    """One that was prepared again, say."""
    artifact = artifact_of(tmp_path / "artifact")
    first = layout_of(artifact, tmp_path, threads=2)
    artifact_of(artifact, num_hidden_layers=3)
    assert layout_of(artifact, tmp_path, threads=2).graph != first.graph


def test_layout_that_is_not_whole_is_made_anew(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """A disk that was full, a file that was cut: nothing that a daemon fails on."""
    artifact = artifact_of(tmp_path / "artifact")
    layout = layout_of(artifact, tmp_path, threads=2)
    expected = load(artifact, layout).forward(row_of(9)).tobytes()
    (weights,) = layout.graph.parent.glob("*.data")
    weights.write_bytes(weights.read_bytes()[:-4096])
    again = layout_of(artifact, tmp_path, threads=2)
    assert load(artifact, again).forward(row_of(9)).tobytes() == expected


def test_layouts_that_nobody_opens_are_swept(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """When another is made, after a month; one that was opened since stays."""
    artifact = artifact_of(tmp_path / "artifact")
    old, used = (layout_of(artifact, tmp_path, threads).graph.parent for threads in (2, 3))
    for folder in (old, used):
        os.utime(folder / "layout.json", (0, 0))
    layout_of(artifact, tmp_path, threads=3)
    own = layout_of(artifact, tmp_path, threads=1).graph.parent
    assert set(tmp_path.glob("artifact-layout-*")) == {used, own}


def test_four_bits_are_mapped_from_the_artifact(artifact_of: ArtifactOf, tmp_path: Path) -> None:
    """They have no other layout than the one that they are stored in."""
    artifact = artifact_of(tmp_path / "artifact", "int4")
    assert layout_of(artifact, tmp_path, threads=2).graph == artifact / GRAPH


def test_cache_that_cannot_be_written_costs_a_warning(
    artifact_of: ArtifactOf, tmp_path: Path
) -> None:
    """The artifact itself is served, one thread a row."""
    artifact = artifact_of(tmp_path / "artifact")
    (tmp_path / "cache").write_text("a file")
    precision = Precision("int8", weight_bits=7, floor=0.5)
    wanted = Wanted(name=str(artifact), task="embed", precision=precision, reason="", threads=2)
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted, tmp_path / "cache")
    (failed,) = [event for event in events if event["event"] == "model.layout_failed"]
    assert "cache" in failed["reason"]
    assert model.lone_threads == 1
    assert layout_of(artifact, tmp_path / "cache", threads=2) == Layout(artifact / GRAPH)
