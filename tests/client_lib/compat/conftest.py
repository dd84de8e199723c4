"""Pairs of small models, each loaded in this process and served by an FP32 daemon."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client_lib import compat

from ...cli.command import prepare


@dataclass(frozen=True)
class Folders:
    """An embedding model and a reranker with random weights."""

    embedder: Path
    reranker: Path


@dataclass(frozen=True)
class Side:
    """Both models by one of the two libraries."""

    embedder: Any
    reranker: Any


def state(folder: Path, name: str, **facts: Any) -> None:
    """Add `facts` to the JSON file `name` of a model folder."""
    path = folder / name
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **facts}))


def scaled(make_model: Callable[..., Path]) -> Folders:
    """Make models with normalised vectors, a query prompt, dot similarity, and a sigmoid."""
    embedder = make_model()
    own = {"prompts": {"query": "query: "}, "similarity_fn_name": "dot"}
    state(embedder, "config_sentence_transformers.json", **own)
    return Folders(embedder, make_model(classifier=True))


def raw(make_model: Callable[..., Path]) -> Folders:
    """Make models with raw vectors, a default prompt, and logits as scores."""
    embedder, reranker = make_model(), make_model(classifier=True)
    modules = json.loads((embedder / "modules.json").read_text())
    (embedder / "modules.json").write_text(json.dumps(modules[:-1]))  # without Normalize
    own = {"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "query"}
    state(embedder, "config_sentence_transformers.json", **own)
    activation = {"activation_fn": "torch.nn.modules.linear.Identity"}
    state(reranker, "config.json", sentence_transformers=activation)
    return Folders(embedder, reranker)


@pytest.fixture(scope="session", params=[scaled, raw], ids=["scaled", "raw"])
def folders(request: pytest.FixtureRequest, make_model: Callable[..., Path]) -> Folders:
    """The folders of the models that both sides use."""
    made: Folders = request.param(make_model)
    return made


@pytest.fixture(scope="session")
def here(folders: Folders) -> Side:
    """sentence-transformers, with the models in this process."""
    library = pytest.importorskip("sentence_transformers")
    return Side(
        library.SentenceTransformer(str(folders.embedder), device="cpu"),
        library.CrossEncoder(str(folders.reranker), device="cpu"),
    )


@pytest.fixture(scope="session")
def there(
    serve: Callable[..., Any], folders: Folders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Side]:
    """`client_lib.compat`, with the models unquantized in a daemon."""
    flags = [
        "--embedding-model", str(folders.embedder), "--reranker-model", str(folders.reranker),
        "--use-quantization", "false",
    ]  # fmt: skip
    place = tmp_path_factory.mktemp("fp32")
    for folder in (folders.embedder, folders.reranker):
        prepare(folder, place / "cache", USE_QUANTIZATION="false")
    with (
        serve(place, *flags) as daemon,
        compat.SentenceTransformer(str(folders.embedder), socket=daemon.socket) as embedder,
        compat.CrossEncoder(str(folders.reranker), socket=daemon.socket) as reranker,
    ):
        yield Side(embedder, reranker)
