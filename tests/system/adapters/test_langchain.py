"""LangChain: its standard tests, a vector store, and reranking."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from client_lib import Client
from client_lib.adapters.langchain import SidecarEmbeddings, SidecarReranker

from ...client_lib.adapters.texts import TEXTS

pytestmark = pytest.mark.slow
DOCUMENTS = [Document(text, metadata={"row": row}) for row, text in enumerate(TEXTS)]


class TestStandardUnit(EmbeddingsUnitTests):
    """LangChain's standard unit tests."""

    @property
    def embeddings_class(self) -> type[SidecarEmbeddings]:
        return SidecarEmbeddings


class TestStandardIntegration(EmbeddingsIntegrationTests):
    """LangChain's standard integration tests, against the daemon."""

    @property
    def embeddings_class(self) -> type[SidecarEmbeddings]:
        return SidecarEmbeddings

    @pytest.fixture(autouse=True)
    def _served(self, socket: str) -> None:
        self._socket = socket

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"socket": self._socket}


@pytest.fixture
def embeddings(socket: str, opened: Callable[[Any], Any]) -> SidecarEmbeddings:
    made: SidecarEmbeddings = opened(SidecarEmbeddings(socket=socket))
    return made


async def test_vectors_have_their_prompts(embeddings: SidecarEmbeddings, client: Client) -> None:
    """Queries and documents get their own prompts, with and without asyncio."""
    query, documents = client.encode("query: x").tolist(), client.encode(["passage: x"]).tolist()
    assert embeddings.embed_query("x") == await embeddings.aembed_query("x") == query
    assert embeddings.embed_documents(["x"]) == documents
    assert await embeddings.aembed_documents(["x"]) == documents
    await embeddings.aclose()


async def test_a_vector_store_finds(embeddings: SidecarEmbeddings) -> None:
    """A vector store built synchronously can be searched with asyncio."""
    store = InMemoryVectorStore.from_documents(DOCUMENTS, embeddings)
    (found,) = await store.asimilarity_search("Who composed Carmen?", k=1)
    assert found.metadata["row"] == 0
    await embeddings.aclose()


async def test_documents_are_reranked(socket: str, client: Client) -> None:
    """Documents are returned best first, with their scores; the input is not modified."""
    reranker = SidecarReranker(socket=socket, top_n=2)
    ranked = reranker.compress_documents(DOCUMENTS, "What is in bread?")
    hits = client.rerank("What is in bread?", TEXTS, top_n=2).results
    assert [(d.metadata["row"], d.metadata["relevance_score"]) for d in ranked] == [
        (hit.index, hit.relevance_score) for hit in hits
    ]
    assert await reranker.acompress_documents(DOCUMENTS, "What is in bread?") == ranked
    assert DOCUMENTS[1].metadata == {"row": 1}
    await reranker.aclose()
