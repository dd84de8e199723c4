"""Chroma: a persistent collection that is created, closed and reopened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest

from client_lib import Client
from client_lib.adapters.chroma import SidecarEmbeddingFunction

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def function(socket: str, opened: Callable[[Any], Any]) -> SidecarEmbeddingFunction:
    made: SidecarEmbeddingFunction = opened(SidecarEmbeddingFunction(socket=socket))
    return made


@contextmanager
def database(path: Path) -> Iterator[Any]:
    client = chromadb.PersistentClient(str(path))
    try:
        yield client
    finally:
        client.close()


def test_a_collection_is_found_again(function: SidecarEmbeddingFunction, tmp_path: Path) -> None:
    """A reopened collection can be searched without passing the embedding function again."""
    with database(tmp_path) as client:
        collection = client.create_collection("texts", embedding_function=function)
        collection.add(ids=["0", "1", "2"], documents=TEXTS)
    with database(tmp_path) as client:
        found = client.get_collection("texts").query(
            query_texts=["Who composed Carmen?", "What is in bread?"], n_results=1
        )
    assert found["ids"] == [["0"], ["1"]]


def test_vectors_have_their_prompts(
    function: SidecarEmbeddingFunction, client: Client, tmp_path: Path
) -> None:
    """Stored texts get the document prompt, and search texts the query prompt."""
    with database(tmp_path) as chroma:
        collection = chroma.create_collection("texts", embedding_function=function)
        collection.add(ids=["0"], documents=["x"])
        (kept,) = collection.get(include=["embeddings"])["embeddings"]
        (distance,) = collection.query(query_texts=["x"])["distances"][0]
    document, query = client.encode(["passage: x", "query: x"])
    assert np.array_equal(kept, document)
    assert distance == pytest.approx(1 - document @ query, abs=1e-4)
    assert np.array_equal(function.embed_query(["x"])[0], query)


def test_what_decides_vectors_stays(function: SidecarEmbeddingFunction, tmp_path: Path) -> None:
    """A collection's socket, timeout and lane may change; options that affect vectors may not."""
    config = function.get_config()
    function.validate_config_update(config, {**config, "priority": "interactive"})
    with pytest.raises(ValueError, match="dimensions of this collection is None"):
        function.validate_config_update(config, {**config, "dimensions": 8})
    harmless = {"socket", "timeout", "priority"}
    for option in config:
        changed = {**config, option: "another"}
        with nullcontext() if option in harmless else pytest.raises(ValueError, match=option):
            function.validate_config_update(config, changed)
    with pytest.raises(ValueError, match="sockte"):
        function.validate_config({"sockte": "/s"})


def test_a_collection_keeps_all_options(socket: str, opened: Callable[[Any], Any]) -> None:
    """The configuration of a collection keeps all options of its embedding function."""
    options = {
        "socket": socket, "timeout": 7.0, "model": "m", "dimensions": 8, "normalize": True,
        "query_prompt_name": "query", "document_prompt_name": "plain", "priority": "interactive",
    }  # fmt: skip
    made = opened(SidecarEmbeddingFunction(**options))
    assert made.get_config() == options
    again = opened(SidecarEmbeddingFunction.build_from_config(made.get_config()))
    assert again.get_config() == options
    assert (made.name(), made.default_space()) == ("sidecar", "cosine")
