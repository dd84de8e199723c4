"""Ray Data's actor: what it adds to a batch, and how it finds or starts a daemon."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import ClientClosed
from client_lib.ray import SidecarEmbedder
from client_lib.wire.messages import Embed

from .fake_daemon import FakeDaemon, vector

Make = Callable[..., SidecarEmbedder]

TEXTS = ["one", "two", "three"]


@pytest.fixture
def embedder(fake: FakeDaemon) -> Iterator[Make]:
    """Create embedders as actors hold them, and close them after the test."""
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> SidecarEmbedder:
            made = SidecarEmbedder(*args, socket=str(fake.socket), **options)
            return stack.enter_context(closing(made))

        yield make


def batch() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.object_]]]:
    return {"text": np.array(TEXTS, object), "id": np.arange(3)}


def test_vectors_are_added_to_a_batch(fake: FakeDaemon, embedder: Make) -> None:
    """The actor adds one vector per row, with bulk priority, and keeps the other columns."""
    out = embedder(dimensions=4, role="document")(batch())
    assert list(out) == ["text", "id", "embedding"]
    assert out["text"].tolist() == TEXTS
    assert (out["embedding"].dtype, out["embedding"].shape) == (np.float32, (3, 8))
    assert (out["embedding"] == [vector(text) for text in TEXTS]).all()
    request = fake.seen[0]
    assert (request.priority, request.dimensions, request.role) == ("bulk", 4, "document")
    assert 590_000 < request.timeout_ms <= 600_000


def test_every_option_reaches_the_daemon(fake: FakeDaemon, embedder: Make) -> None:
    """Every option reaches the daemon, and the columns can be named."""
    options = {
        "model": "fake", "prompt_name": "query", "role": "query", "normalize": False,
        "dimensions": 3, "priority": "interactive",
    }  # fmt: skip
    body = {"body": batch()["text"]}
    assert [*embedder("body", "vector", timeout=7, **options)(body)] == ["body", "vector"]
    (request,) = fake.wait_for(Embed)
    assert {name: getattr(request, name) for name in options} == options
    assert 0 < request.timeout_ms <= 7_000


class Node:
    """A stand-in for a node's daemon."""

    def __init__(self, folder: Path, flags: Any) -> None:
        self.arguments = folder, flags
        self.socket = folder
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


def test_a_node_without_a_daemon_gets_one(
    fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running daemon is used; otherwise one is started with the given flags until the end."""
    made: list[Node] = []

    def start(folder: Path, flags: Any) -> Node:
        made.append(Node(folder, flags))
        return made[-1]

    monkeypatch.setattr("client_lib.ray.NodeDaemon", start)
    monkeypatch.setattr("client_lib.ray._folder_of_node", lambda: fake.socket)
    monkeypatch.setenv("SIDECAR_SOCKET", str(fake.socket))
    with closing(SidecarEmbedder()) as embedder:
        embedder(batch())
    assert made == []
    monkeypatch.setenv("SIDECAR_SOCKET", str(tmp_path / "none"))
    with closing(SidecarEmbedder(serve=["--threads", "2"])) as embedder:
        embedder(batch())
        (node,) = made
        assert node.is_open
    assert node.arguments == (fake.socket, ["--threads", "2"])
    assert not node.is_open
    with pytest.raises(ClientClosed):
        embedder(batch())


@pytest.mark.parametrize("cell", [None, float("nan"), b"bytes", 3])
def test_a_cell_that_is_no_text_is_named(fake: FakeDaemon, embedder: Make, cell: object) -> None:
    """A cell that is not text raises a `TypeError` with its column and row."""
    wrong = batch()
    wrong["text"][1] = cell
    with pytest.raises(TypeError, match=rf"'text' holds {type(cell).__name__}, not .* in row 1"):
        embedder()(wrong)
    assert fake.seen == []


def test_columns_that_do_not_fit_are_named(embedder: Make) -> None:
    """A missing input column, or an existing output column, is refused by name."""
    with pytest.raises(ValueError, match="no column 'body'; the batch has 'text', 'id'"):
        embedder("body")(batch())
    with pytest.raises(ValueError, match="column 'id' already exists"):
        embedder(output_column="id")(batch())


def test_without_its_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray and without a daemon, the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("SIDECAR_SOCKET", str(tmp_path / "none"))
    with pytest.raises(ImportError, match=r"pip install 'embedding-sidecar-client\[ray\]'"):
        SidecarEmbedder()
