"""Chroma: an embedding function, which collections keep and find again."""

from typing import Any, Self

from client_lib.adapters import needs

with needs("chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function

    from client_lib.adapters.base import Embedder

# What decides the vectors: a collection cannot change it without embedding all anew.
_DECISIVE = ("model", "dimensions", "normalize", "query_prompt_name", "document_prompt_name")


@register_embedding_function
class SidecarEmbeddingFunction(EmbeddingFunction[Documents]):
    """Chroma's embedding function by way of the daemon; `options` are those of `Embedder`.

    Chroma makes it again from a collection that was persisted with it, where this module has
    been imported before.
    """

    def __init__(self, **options: Any) -> None:
        self._embedder = Embedder(**options)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's interface
        """Return one vector a document."""
        return list(self._embedder.encode_document(input))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's interface
        """Return one vector a query."""
        return list(self._embedder.encode_query(input))

    def close(self) -> None:
        """Close the connection."""
        self._embedder.close()

    @staticmethod
    def name() -> str:
        """Return the name under which collections keep it."""
        return "sidecar"

    def default_space(self) -> Space:
        """Return the distance of collections that name none."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the options that a collection keeps."""
        return self._embedder.model_dump()

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> Self:
        """Return the embedding function that a collection was made with."""
        return cls(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raise `ValueError` where an option does not exist, or its value is none."""
        Embedder(**config)

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Raise `ValueError` where vectors to come would not fit those that are there."""
        for option in _DECISIVE:
            old, new = old_config.get(option), new_config.get(option)
            if old != new:
                raise ValueError(
                    f"{option} of this collection is {old!r} and cannot become {new!r}: "
                    "make another collection"
                )
