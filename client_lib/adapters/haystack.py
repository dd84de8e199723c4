"""Haystack: a text embedder, a document embedder and a ranker."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from client_lib.adapters import needs

with needs("haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict

    from client_lib.adapters.base import Embedder, Float32, Reranker, Sidecar
    from client_lib.wire.replies import RerankResult


class _Component:
    """Base of the components: serialising and closing.

    `own` are the options beyond those of `sidecar`. Components call its `__init__` by name, since
    `super()` fails in a class that Haystack has re-created.
    """

    def __init__(self, sidecar: Sidecar, **own: Any) -> None:
        self._sidecar = sidecar
        self._own = own

    def to_dict(self) -> dict[str, Any]:
        """Return the options, without connections."""
        return default_to_dict(self, **self._own, **self._sidecar.model_dump())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component for a dictionary from `to_dict`."""
        return default_from_dict(cls, data)

    def close(self) -> None:
        """Close the connection of `run`."""
        self._sidecar.close()

    async def close_async(self) -> None:
        """Close the connections of `run` and of `run_async`."""
        await self._sidecar.aclose()


@component
class SidecarTextEmbedder(_Component):
    """Embeds a query; `options` are those of `Embedder`."""

    def __init__(self, **options: Any) -> None:
        self._embedder = Embedder(**options)
        _Component.__init__(self, self._embedder)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Return the vector of `text`."""
        return {"embedding": self._embedder.encode_query(text).tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """Do what `run` does, in asyncio."""
        return {"embedding": (await self._embedder.aencode_query(text)).tolist()}


@component
class SidecarDocumentEmbedder(_Component):
    """Returns copies of documents with their vectors.

    Args:
        meta_fields_to_embed: Fields of a document's meta to embed before its content.
        embedding_separator: What joins these fields and the content.
        **options: Those of `Embedder`.
    """

    def __init__(
        self,
        *,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        **options: Any,
    ) -> None:
        self._embedder = Embedder(**options)
        self._fields = list(meta_fields_to_embed)
        self._separator = embedding_separator
        _Component.__init__(
            self,
            self._embedder,
            meta_fields_to_embed=self._fields,
            embedding_separator=self._separator,
        )

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return copies of `documents` with their vectors."""
        texts = [self._text(document) for document in documents]
        return _embedded(documents, self._embedder.encode_document(texts))

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Do what `run` does, in asyncio."""
        texts = [self._text(document) for document in documents]
        return _embedded(documents, await self._embedder.aencode_document(texts))

    def _text(self, document: Document) -> str:
        values = [document.meta.get(field) for field in self._fields]
        present = [str(value) for value in values if value is not None]
        return self._separator.join([*present, document.content or ""])


@component
class SidecarRanker(_Component):
    """Returns copies of documents with new scores, ranked by their relevance to a query.

    Args:
        top_k: How many documents to return; all by default.
        **options: Those of `Reranker`.
    """

    def __init__(self, *, top_k: int | None = None, **options: Any) -> None:
        self._reranker = Reranker(**options)
        self._top_k = top_k
        _Component.__init__(self, self._reranker, top_k=top_k)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return the `top_k` best of `documents`, best first."""
        top_k = self._top_k if top_k is None else top_k
        return _ranked(documents, self._reranker.rank(query, _contents(documents), top_k))

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Do what `run` does, in asyncio."""
        top_k = self._top_k if top_k is None else top_k
        return _ranked(documents, await self._reranker.arank(query, _contents(documents), top_k))


def _contents(documents: Sequence[Document]) -> list[str]:
    return [document.content or "" for document in documents]


def _embedded(documents: Sequence[Document], vectors: Float32) -> dict[str, list[Document]]:
    pairs = zip(documents, vectors.tolist(), strict=True)
    return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}


def _ranked(
    documents: Sequence[Document], hits: Sequence[RerankResult]
) -> dict[str, list[Document]]:
    scored = [replace(documents[hit.index], score=hit.relevance_score) for hit in hits]
    return {"documents": scored}
