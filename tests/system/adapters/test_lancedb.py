"""LanceDB: a table on disk, with vector, full-text and hybrid search, and reranking."""

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
    """A table that embeds rows as they are added, reopened after it was created."""

    class Text(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    made = lancedb.connect(tmp_path).create_table("texts", schema=Text)
    made.add([{"text": text} for text in TEXTS])
    made.create_index("text", config=FTS())
    return lancedb.connect(tmp_path).open_table("texts")


def test_a_table_is_searched(table: Any) -> None:
    """A reopened table can be searched by text without passing the embedding function again."""
    (found,) = table.search("Who composed Carmen?").limit(1).to_list()
    assert found["text"] == TEXTS[0]


def test_vectors_have_their_prompts(
    table: Any, function: SidecarEmbeddingFunction, client: Client
) -> None:
    """Stored texts get the document prompt, and search texts the query prompt."""
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
    """All kinds of search can be reranked; other scores are kept only with return_score="all"."""
    reranker = SidecarReranker(socket=socket, return_score=kept)
    question = "flour and yeast"
    found = table.search(question, query_type=kind).rerank(reranker).limit(3).to_list()
    assert found[0]["text"] == TEXTS[1]
    scores = [row["_relevance_score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    assert bool({"_distance", "_score"} & set(found[0])) == (kept == "all")
    reranker.close()


def test_nothing_found_is_reranked(table: Any, socket: str) -> None:
    """Reranking an empty result gives an empty result."""
    reranker = SidecarReranker(socket=socket)
    assert table.search("zeppelin", query_type="fts").rerank(reranker).to_list() == []


def test_errors_keep_their_names(tmp_path: Path) -> None:
    """The client's exceptions are raised unchanged, without LanceDB's own retries."""
    function = get_registry().get("sidecar").create(socket=str(tmp_path / "none"), timeout=0.1)
    with pytest.raises(ConnectionLost):
        function.compute_query_embeddings_with_retry("x")
    with pytest.raises(ConnectionLost):
        function.compute_source_embeddings_with_retry(["x"])


def test_another_column_is_judged(socket: str, opened: Callable[[Any], Any]) -> None:
    """The reranker judges the column that it is given, and returns all columns."""
    found = pa.table({"text": ["", "", ""], "body": TEXTS, "id": [0, 1, 2]})
    reranker = opened(SidecarReranker("body", socket=socket))
    ranked = reranker.rerank_vector("flour and yeast", found)
    assert ranked["body"][0].as_py() == TEXTS[1]
    assert [TEXTS[row] for row in ranked["id"].to_pylist()] == ranked["body"].to_pylist()


def test_dimensions_that_are_given_are_not_asked_for(tmp_path: Path) -> None:
    """With explicit dimensions, a table can be described without a running daemon."""
    create = get_registry().get("sidecar").create
    assert create(socket=str(tmp_path / "none"), timeout=0.1, dimensions=8).ndims() == 8
