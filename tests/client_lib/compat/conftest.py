"""One FP32 daemon with an embedding model and a reranker, and the same two models in process."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client_lib import compat


@dataclass(frozen=True)
class Side:
    """Either library, as a script would have imported it."""

    embedder: Any
    reranker: Any


@pytest.fixture(scope="session")
def embedder(make_model: Callable[..., Path]) -> Path:
    """A small model with random weights, a prompt for queries and a similarity of its own."""
    folder = make_model()
    own = {"prompts": {"query": "query: "}, "similarity_fn_name": "dot"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(own))
    return folder


@pytest.fixture(scope="session")
def reranker(make_model: Callable[..., Path]) -> Path:
    """A small classifier with random weights, whose scores are spread out."""
    return make_model(classifier=True)


@pytest.fixture(scope="session")
def logits(make_model: Callable[..., Path]) -> Path:
    """The same, whose folder asks for logits."""
    folder = make_model(classifier=True)
    config = json.loads((folder / "config.json").read_text())
    activation = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps({**config, "sentence_transformers": activation}))
    return folder


@pytest.fixture(scope="session")
def fp32(
    serve: Callable[..., Any],
    embedder: Path,
    reranker: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """A daemon that serves both unquantized."""
    flags = ["--embedding-model", str(embedder), "--reranker-model", str(reranker)]
    with serve(tmp_path_factory.mktemp("fp32"), *flags, "--use-quantization", "false") as running:
        yield running


@pytest.fixture(scope="session")
def here(embedder: Path, reranker: Path) -> Side:
    """sentence-transformers, with the models in this process."""
    library = pytest.importorskip("sentence_transformers")
    one = library.SentenceTransformer(str(embedder), device="cpu")
    return Side(one, library.CrossEncoder(str(reranker), device="cpu"))


@pytest.fixture(scope="session")
def there(fp32: Any, embedder: Path, reranker: Path) -> Iterator[Side]:
    """The same calls, with the models in the daemon."""
    with (
        compat.SentenceTransformer(str(embedder), device="cpu", socket=fp32.socket) as one,
        compat.CrossEncoder(str(reranker), device="cpu", socket=fp32.socket) as other,
    ):
        yield Side(one, other)
