"""Haystack: components on their own, in pipelines, and serialized."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from client_lib import Client
from client_lib.adapters.haystack import (
    SidecarDocumentEmbedder,
    SidecarRanker,
    SidecarTextEmbedder,
)

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow
QUESTION = "Who composed Carmen?"


def documents() -> list[Document]:
    return [Document(id=str(row), content=text) for row, text in enumerate(TEXTS)]


@pytest.fixture
def search(socket: str, opened: Callable[[Any], Any]) -> Iterator[Pipeline]:
    """A pipeline from a question to ranked documents, over a store of embedded documents."""
    embedder = opened(SidecarDocumentEmbedder(socket=socket))
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(embedder.run(documents=documents())["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", SidecarTextEmbedder(socket=socket))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=3))
    pipeline.add_component("ranker", SidecarRanker(socket=socket, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    yield pipeline
    pipeline.close()


def asked(question: str) -> dict[str, Any]:
    return {"embedder": {"text": question}, "ranker": {"query": question}}


def test_a_pipeline_finds(search: Pipeline, client: Client) -> None:
    """A pipeline returns the best document first, with the daemon's score."""
    found = search.run(asked(QUESTION))["ranker"]["documents"]
    assert found[0].id == "0"
    hits = client.rerank(QUESTION, TEXTS, top_n=2).results
    assert [document.score for document in found] == [hit.relevance_score for hit in hits]


async def test_a_pipeline_finds_by_asyncio(search: Pipeline) -> None:
    """A pipeline run with asyncio uses the asynchronous methods of the components."""
    found = (await search.run_async(asked(QUESTION)))["ranker"]["documents"]
    assert found[0].id == "0"
    await search.close_async()


def test_a_pipeline_is_written_down_and_read_again(search: Pipeline) -> None:
    """A pipeline survives a round trip through YAML, if its module is allowed."""
    other = Pipeline.loads(search.dumps(), allowed_modules=["client_lib.adapters.haystack"])
    assert other.get_component("ranker").to_dict() == search.get_component("ranker").to_dict()
    embedding = other.get_component("embedder").run(text="x")
    assert embedding == search.get_component("embedder").run(text="x")
    other.close()


async def test_vectors_have_their_prompts(
    socket: str, client: Client, opened: Callable[[Any], Any]
) -> None:
    """Queries and documents get their prompts and meta fields; the input is not modified."""
    text = opened(SidecarTextEmbedder(socket=socket))
    assert text.run(text="x") == {"embedding": client.encode("query: x").tolist()}
    embedder = opened(SidecarDocumentEmbedder(socket=socket, meta_fields_to_embed=["title"]))
    document = Document(content="an opera", meta={"title": "Carmen", "year": 1875})
    expected = client.encode("passage: Carmen\nan opera").tolist()
    for done in (
        embedder.run(documents=[document]),
        await embedder.run_async(documents=[document]),
    ):
        assert done["documents"][0].embedding == expected
    assert document.embedding is None
    await embedder.close_async()


def test_the_ranker_may_be_asked_for_more(socket: str, opened: Callable[[Any], Any]) -> None:
    """The `top_k` of a run overrides that of the component."""
    ranker = opened(SidecarRanker(socket=socket, top_k=1))
    assert len(ranker.run(query="bread", documents=documents())["documents"]) == 1
    assert len(ranker.run(query="bread", documents=documents(), top_k=3)["documents"]) == 3


async def test_the_ranker_keeps_its_own_number_by_asyncio_too(
    socket: str, opened: Callable[[Any], Any]
) -> None:
    """With asyncio, too, a run may override `top_k`; missing content counts as empty text."""
    ranker = opened(SidecarRanker(socket=socket, top_k=1))
    found = [*documents(), Document(id="none")]
    assert len((await ranker.run_async(query="bread", documents=found))["documents"]) == 1
    many = (await ranker.run_async(query="bread", documents=found, top_k=9))["documents"]
    assert many == ranker.run(query="bread", documents=found, top_k=9)["documents"]
    with Client(socket) as client:
        (hit,) = client.rerank("bread", [""]).results
    (empty,) = (document for document in many if document.id == "none")
    assert empty.score == pytest.approx(hit.relevance_score, abs=1e-6)
    await ranker.close_async()


def test_what_is_embedded_of_a_document(
    socket: str, client: Client, opened: Callable[[Any], Any]
) -> None:
    """The text embedded is the document's named meta fields, in order, then its content."""
    options = {
        "meta_fields_to_embed": ["title", "year", "none", "pages"],
        "embedding_separator": "|",
    }
    embedder = opened(SidecarDocumentEmbedder(socket=socket, **options))
    meta = {"pages": 0, "title": "Carmen", "year": 1875, "none": None}
    done = embedder.run(documents=[Document(content="an opera", meta=meta), Document(meta=meta)])
    texts = ["passage: Carmen|1875|0|an opera", "passage: Carmen|1875|0|"]
    assert [document.embedding for document in done["documents"]] == [
        client.encode(text).tolist() for text in texts
    ]
    again = opened(SidecarDocumentEmbedder.from_dict(embedder.to_dict()))
    assert again.to_dict() == embedder.to_dict()
    assert {name: embedder.to_dict()["init_parameters"][name] for name in options} == options
