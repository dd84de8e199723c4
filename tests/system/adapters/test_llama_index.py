"""LlamaIndex: an index in memory, its retriever, and reranking."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from client_lib import Client
from client_lib.adapters.llama_index import SidecarEmbedding, SidecarRerank

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def embedding(socket: str, opened: Callable[[Any], Any]) -> SidecarEmbedding:
    made: SidecarEmbedding = opened(SidecarEmbedding(socket=socket))
    return made


@pytest.fixture
def rerank(socket: str, opened: Callable[[Any], Any]) -> SidecarRerank:
    made: SidecarRerank = opened(SidecarRerank(socket=socket, top_n=2))
    return made


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=str(row)) for row, text in enumerate(TEXTS)]


async def test_vectors_have_their_prompts(embedding: SidecarEmbedding, client: Client) -> None:
    """Queries and texts get their own prompts in every method that LlamaIndex calls."""
    query = client.encode("query: x").tolist()
    assert embedding.get_query_embedding("x") == query
    assert await embedding.aget_query_embedding("x") == query
    document = client.encode("passage: x").tolist()
    assert embedding.get_text_embedding("x") == document
    assert await embedding.aget_text_embedding("x") == document
    await embedding.aclose()


async def test_batches(embedding: SidecarEmbedding, client: Client) -> None:
    """Texts are embedded in batches, and vectors are returned in the order of the texts."""
    expected = client.encode([f"passage: {text}" for text in TEXTS]).tolist()
    embedding.embed_batch_size = 2
    assert embedding.get_text_embedding_batch(TEXTS) == expected
    assert await embedding.aget_text_embedding_batch(TEXTS) == expected
    await embedding.aclose()


async def test_an_index_finds_and_reranks(
    embedding: SidecarEmbedding, rerank: SidecarRerank
) -> None:
    """An index retrieves and reranks the right node, with and without asyncio."""
    index = VectorStoreIndex(nodes(), embed_model=embedding)
    retriever = index.as_retriever(similarity_top_k=3)
    question = "Who composed Carmen?"
    found = rerank.postprocess_nodes(retriever.retrieve(question), query_str=question)
    assert (found[0].node_id, len(found)) == ("0", 2)
    again = await rerank.apostprocess_nodes(await retriever.aretrieve(question), query_str=question)
    assert [(n.node_id, n.score) for n in again] == [(n.node_id, n.score) for n in found]
    await embedding.aclose()
    await rerank.aclose()


def test_nodes_are_judged_as_they_are_embedded(rerank: SidecarRerank, client: Client) -> None:
    """Reranking uses the same text as embedding, with the metadata that goes into vectors."""
    node = TextNode(text="It is an opera.", metadata={"title": "Carmen"})
    (ranked,) = rerank.postprocess_nodes([NodeWithScore(node=node)], query_str="Carmen")
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    assert ranked.score == client.rerank("Carmen", [text]).results[0].relevance_score


def test_reranking_needs_a_query(rerank: SidecarRerank) -> None:
    """Reranking without a query raises `ValueError`."""
    with pytest.raises(ValueError, match="query_bundle or query_str"):
        rerank.postprocess_nodes([NodeWithScore(node=node) for node in nodes()])


def test_it_is_written_down_and_read_again(
    embedding: SidecarEmbedding, rerank: SidecarRerank, opened: Callable[[Any], Any]
) -> None:
    """Embedder and reranker survive round trips through dicts, JSON and pickle."""
    expected = embedding.get_query_embedding("x")
    for other in (
        SidecarEmbedding.from_dict(embedding.to_dict()),
        SidecarEmbedding.from_json(embedding.to_json()),
        pickle.loads(pickle.dumps(embedding)),
    ):
        assert opened(other).get_query_embedding("x") == expected
    assert SidecarRerank.from_dict(rerank.to_dict()).top_n == 2
