"""LanceDB: a table on disk, searched by vectors, by words and by both, and reranked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import get_registry
from lancedb.index import FTS
from lancedb.pydantic import LanceModel, Vector

from client_lib import Client, ConnectionLost
from client_lib.adapters.lancedb import SidecarEmbeddingFunction, SidecarReranker

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def function(socket: str, opened: Callable[[Any], Any]) -> SidecarEmbeddingFunction:
    made: SidecarEmbeddingFunction = opened(get_registry().get("sidecar").create(socket=socket))
    return made


@pytest.fixture
def table(function: SidecarEmbeddingFunction, tmp_path: Path) -> Iterator[Any]:
    """A table that embeds what is added, opened again after it was made."""

    class Text(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    made = lancedb.connect(tmp_path).create_table("texts", schema=Text)
    made.add([{"text": text} for text in TEXTS])
    made.create_index("text", config=FTS())
    return lancedb.connect(tmp_path).open_table("texts")


def test_a_table_is_searched(table: Any) -> None:
    """By texts, after it was opened without being told of the embedding function."""
    (found,) = table.search("Who composed Carmen?").limit(1).to_list()
    assert found["text"] == TEXTS[0]


def test_vectors_have_their_prompts(
    table: Any, function: SidecarEmbeddingFunction, client: Client
) -> None:
    """Those that are kept are documents', those that are searched with queries'."""
    kept = {row["text"]: row["vector"] for row in table.to_arrow().to_pylist()}
    for text in TEXTS:
        assert kept[text] == client.encode(f"passage: {text}").tolist()
    (query,) = function.compute_query_embeddings("x")
    assert np.array_equal(query, client.encode("query: x"))


@pytest.mark.parametrize("kind", ["vector", "fts", "hybrid"])
@pytest.mark.parametrize("kept", ["relevance", "all"])
def test_searches_are_reranked(
    table: Any, socket: str, kind: str, kept: str, opened: Callable[[Any], Any]
) -> None:
    """Of every kind; the other scores stay only where they are wanted."""
    reranker = SidecarReranker(socket=socket, return_score=kept)
    question = "flour and yeast"
    found = table.search(question, query_type=kind).rerank(reranker).limit(3).to_list()
    assert found[0]["text"] == TEXTS[1]
    scores = [row["_relevance_score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    assert bool({"_distance", "_score"} & set(found[0])) == (kept == "all")
    reranker.close()


def test_nothing_found_is_reranked(table: Any, socket: str) -> None:
    """To nothing."""
    reranker = SidecarReranker(socket=socket)
    assert table.search("zeppelin", query_type="fts").rerank(reranker).to_list() == []


def test_errors_keep_their_names(tmp_path: Path) -> None:
    """And come at once: the client has tried again already."""
    function = get_registry().get("sidecar").create(socket=str(tmp_path / "none"), timeout=0.1)
    with pytest.raises(ConnectionLost):
        function.compute_query_embeddings_with_retry("x")
    with pytest.raises(ConnectionLost):
        function.compute_source_embeddings_with_retry(["x"])


def test_another_column_is_judged(socket: str, opened: Callable[[Any], Any]) -> None:
    """The one that the reranker is told of; all columns come along."""
    found = pa.table({"text": ["", "", ""], "body": TEXTS, "id": [0, 1, 2]})
    reranker = opened(SidecarReranker("body", socket=socket))
    ranked = reranker.rerank_vector("flour and yeast", found)
    assert ranked["body"][0].as_py() == TEXTS[1]
    assert [TEXTS[row] for row in ranked["id"].to_pylist()] == ranked["body"].to_pylist()


def test_dimensions_that_are_given_are_not_asked_for(tmp_path: Path) -> None:
    """A table may be described where no daemon runs."""
    create = get_registry().get("sidecar").create
    assert create(socket=str(tmp_path / "none"), timeout=0.1, dimensions=8).ndims() == 8
