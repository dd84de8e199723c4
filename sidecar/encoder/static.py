"""Static models (model2vec, potion): the mean of vectors from a token table, without layers.

Tulkens and van Dongen, 2024, Model2Vec; as implemented by sentence-transformers' `StaticEmbedding`.
"""

from typing import Never

from sidecar.encoder.architecture import Embeddings, Encoder, Float32, Head, Layers


def static_encoder(table: Float32, head: Head) -> Encoder:
    """Return the encoder that looks tokens up in `table`, float32 [tokens, dimensions]."""
    return Encoder(Embeddings(table), Layers(0, _no_layer), heads=0, head=head)


def _no_layer(index: int) -> Never:
    raise IndexError(index)
