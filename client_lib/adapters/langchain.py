"""LangChain: embeddings, and a document compressor that reranks."""

from collections.abc import Iterable, Sequence

from client_lib.adapters import needs

with needs("langchain"):
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings

    from client_lib.adapters.base import Count, Embedder, Reranker
    from client_lib.wire.replies import RerankResult


class SidecarEmbeddings(Embedder, Embeddings):
    """LangChain's `Embeddings` over the daemon; the options are those of `Embedder`."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per document."""
        vectors: list[list[float]] = self.encode_document(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the query's vector."""
        vector: list[float] = self.encode_query(text).tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do what `embed_documents` does, in asyncio."""
        vectors: list[list[float]] = (await self.aencode_document(texts)).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Do what `embed_query` does, in asyncio."""
        vector: list[float] = (await self.aencode_query(text)).tolist()
        return vector


class SidecarReranker(Reranker, BaseDocumentCompressor):
    """LangChain's document compressor: returns the best documents first.

    Each is a copy with `relevance_score` in its metadata.

    Args:
        top_n: How many documents to return; all by default. The other options are those of
            `Reranker`.
    """

    top_n: Count | None = None

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks = None,  # noqa: ARG002 - LangChain's interface
    ) -> list[Document]:
        """Return copies of the documents by their relevance to `query`."""
        return _ranked(documents, self.rank(query, _texts(documents), self.top_n))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks = None,  # noqa: ARG002 - LangChain's interface
    ) -> list[Document]:
        """Do what `compress_documents` does, in asyncio."""
        return _ranked(documents, await self.arank(query, _texts(documents), self.top_n))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _ranked(documents: Sequence[Document], hits: Iterable[RerankResult]) -> list[Document]:
    return [_scored(documents[hit.index], hit.relevance_score) for hit in hits]


def _scored(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
