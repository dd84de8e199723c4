"""LanceDB: an embedding function in its registry, and a reranker."""

from typing import Any

from client_lib.adapters import needs

with needs("lancedb"):
    import pyarrow as pa
    from lancedb.embeddings import TextEmbeddingFunction, register
    from lancedb.rerankers import Reranker as LanceReranker

    from client_lib.adapters.base import Embedder, Float32, Reranker


@register("sidecar")
class SidecarEmbeddingFunction(Embedder, TextEmbeddingFunction):
    """LanceDB's `TextEmbeddingFunction` over the daemon; the options are those of `Embedder`.

    Create one with `get_registry().get("sidecar").create()`. LanceDB restores it with its table if
    this module has been imported.
    """

    def ndims(self) -> int:
        """Return the number of dimensions; without `dimensions`, embed a text to find it."""
        return self.dimensions or len(self.encode_query(""))

    def generate_embeddings(self, texts: list[str], *_: Any, **__: Any) -> list[Float32]:
        """Return one vector per document."""
        return list(self.encode_document(texts))

    def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[Float32]:
        """Return the query's vector, in a list."""
        return [self.encode_query(query)]

    # LanceDB's own versions retry any error seven times and hide it. The client has already
    # retried whatever a retry can help.
    def compute_query_embeddings_with_retry(self, *args: Any, **options: Any) -> list[Any]:
        """Do what `compute_query_embeddings` does, without LanceDB's retries."""
        return self.compute_query_embeddings(*args, **options)

    def compute_source_embeddings_with_retry(self, *args: Any, **options: Any) -> list[Any]:
        """Return one vector per document, without LanceDB's retries."""
        return self.compute_source_embeddings(*args, **options)


class SidecarReranker(LanceReranker):
    """LanceDB's `Reranker` over the daemon.

    Args:
        column: The text column to rank by.
        return_score: "relevance", or "all" to keep the other scores, too.
        **options: Those of `Reranker`.
    """

    def __init__(
        self, column: str = "text", *, return_score: str = "relevance", **options: Any
    ) -> None:
        super().__init__(return_score)
        self._column = column
        self._reranker = Reranker(**options)

    def close(self) -> None:
        """Close the connection."""
        self._reranker.close()

    def rerank_vector(self, query: str, vector_results: pa.Table) -> pa.Table:
        """Return the results of a vector search, most relevant first."""
        return self._ranked(query, vector_results)

    def rerank_fts(self, query: str, fts_results: pa.Table) -> pa.Table:
        """Return the results of a full-text search, most relevant first."""
        return self._ranked(query, fts_results)

    def rerank_hybrid(
        self, query: str, vector_results: pa.Table, fts_results: pa.Table
    ) -> pa.Table:
        """Return the merged results of both searches, most relevant first."""
        merge = self._merge_and_keep_scores if self.score == "all" else self.merge_results
        return self._ranked(query, merge(vector_results, fts_results))

    def _ranked(self, query: str, found: pa.Table) -> pa.Table:
        hits = self._reranker.rank(query, found[self._column].to_pylist())
        order = pa.array([hit.index for hit in hits], pa.int64())
        scores = pa.array([hit.relevance_score for hit in hits], pa.float32())
        ranked = found.take(order).append_column("_relevance_score", scores)
        return self._keep_relevance_score(ranked)
