"""Chroma: an embedding function that collections persist and restore."""

from typing import Any, Self

from client_lib.adapters import needs

with needs("chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
    from chromadb.utils.embedding_functions import register_embedding_function

    from client_lib.adapters.base import Embedder

# Options that determine the vectors: changing one requires embedding the collection again.
_DECISIVE = ("model", "dimensions", "normalize", "query_prompt_name", "document_prompt_name")


@register_embedding_function
class SidecarEmbeddingFunction(EmbeddingFunction[Documents]):
    """Chroma's `EmbeddingFunction` over the daemon; `options` are those of `Embedder`.

    Chroma restores it with a persisted collection if this module has been imported.
    """

    def __init__(self, **options: Any) -> None:
        self._embedder = Embedder(**options)

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's interface
        """Return one vector per document."""
        return list(self._embedder.encode_document(input))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's interface
        """Return one vector per query."""
        return list(self._embedder.encode_query(input))

    def close(self) -> None:
        """Close the connection."""
        self._embedder.close()

    @staticmethod
    def name() -> str:
        """Return the name under which collections persist this function."""
        return "sidecar"

    def default_space(self) -> Space:
        """Return the distance of collections that do not set one."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the options for a collection to persist."""
        return self._embedder.model_dump()

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> Self:
        """Return the embedding function for persisted options."""
        return cls(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raise `ValueError` if an option does not exist or its value is invalid."""
        Embedder(**config)

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Raise `ValueError` if new vectors would not be comparable with existing ones."""
        for option in _DECISIVE:
            old, new = old_config.get(option), new_config.get(option)
            if old != new:
                raise ValueError(
                    f"{option} of this collection is {old!r} and cannot be changed to {new!r}: "
                    "create another collection"
                )
