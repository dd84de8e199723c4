"""LlamaIndex: an embedding, and a node postprocessor that reranks."""

from collections.abc import Iterable, Sequence

from client_lib.adapters import needs

with needs("llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from pydantic import Field

    from client_lib.adapters.base import Count, Embedder, Reranker
    from client_lib.wire.replies import RerankResult


class SidecarEmbedding(Embedder, BaseEmbedding):
    """LlamaIndex's `BaseEmbedding` over the daemon; the options are those of `Embedder`."""

    model_name: str = "sidecar"
    # As many texts as one call of the client keeps in flight.
    embed_batch_size: int = Field(default=1024, gt=0, le=2048)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "SidecarEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.encode_query(query).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self.aencode_query(query)).tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = self.encode_document(text).tolist()
        return vector

    async def _aget_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = (await self.aencode_document(text)).tolist()
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.encode_document(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = (await self.aencode_document(texts)).tolist()
        return vectors


class SidecarRerank(Reranker, BaseNodePostprocessor):
    """LlamaIndex's node postprocessor: returns the best nodes first, with new scores.

    A node is ranked by the text that is embedded for it.

    Args:
        top_n: How many nodes to return; all by default. The other options are those of `Reranker`.
    """

    top_n: Count | None = None

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "SidecarRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _ranked(nodes, self.rank(_query(query_bundle), _texts(nodes), self.top_n))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _ranked(nodes, await self.arank(_query(query_bundle), _texts(nodes), self.top_n))


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise ValueError("reranking needs the query: pass query_bundle or query_str")
    return bundle.query_str


def _texts(nodes: Iterable[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _ranked(nodes: Sequence[NodeWithScore], hits: Iterable[RerankResult]) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[hit.index].node, score=hit.relevance_score) for hit in hits]
