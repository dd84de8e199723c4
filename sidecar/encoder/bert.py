"""BERT (MiniLM, e5, bge-*-en) and RoBERTa (XLM-R, bge-reranker), which names its parts alike.

Names and mathematics: Devlin et al., 2018 (arXiv:1810.04805) and Liu et al., 2019
(arXiv:1907.11692), as laid out by transformers' `BertModel` and `RobertaModel`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.encoder.architecture import (
    Classifier,
    Embeddings,
    Encoder,
    Float32,
    Layer,
    Layers,
    Pooling,
)
from sidecar.encoder.checkpoint import Checkpoint, check_mathematics

# RoBERTa counts positions from one behind its padding id, which is 1.
ROBERTA_FIRST_POSITION = 2


def read_bert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], pooling: Pooling | None
) -> Encoder:
    """Return the encoder that `config` and its tensors describe; `pooling` None for a reranker.

    Raises `UnsupportedModelError` for a variant whose mathematics differ, `KeyError` for a
    checkpoint that lacks a tensor.
    """
    checkpoint = _checkpoint(config, tensor)
    head = pooling or Classifier(
        checkpoint.linear("pooler.dense"), checkpoint.linear("classifier"), "Tanh"
    )
    return _read(config, checkpoint, head, first_position=0)


def read_roberta(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], pooling: Pooling | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    checkpoint = _checkpoint(config, tensor)
    head = pooling or Classifier(
        checkpoint.linear("classifier.dense"), checkpoint.linear("classifier.out_proj"), "Tanh"
    )
    return _read(config, checkpoint, head, first_position=ROBERTA_FIRST_POSITION)


def _checkpoint(config: Mapping[str, Any], tensor: Callable[[str], Float32]) -> Checkpoint:
    check_mathematics(config, config.get("hidden_act", "gelu"))
    return Checkpoint(tensor, float(config.get("layer_norm_eps", 1e-12)))


def _read(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    head: Pooling | Classifier,
    *,
    first_position: int,
) -> Encoder:
    return Encoder(
        embeddings=Embeddings(
            word=checkpoint.tensor("embeddings.word_embeddings.weight"),
            position=checkpoint.tensor("embeddings.position_embeddings.weight")[first_position:],
            token_type=checkpoint.tensor("embeddings.token_type_embeddings.weight"),
            norm=checkpoint.norm("embeddings.LayerNorm"),
        ),
        layers=Layers(
            int(config["num_hidden_layers"]),
            lambda index: _layer(checkpoint, f"encoder.layer.{index}"),
        ),
        heads=int(config["num_attention_heads"]),
        head=head,
    )


def _layer(checkpoint: Checkpoint, at: str) -> Layer:
    attention = f"{at}.attention.self"
    return Layer(
        query_key_value=checkpoint.stacked(
            f"{attention}.query", f"{attention}.key", f"{attention}.value"
        ),
        attention_output=checkpoint.linear(f"{at}.attention.output.dense"),
        attention_norm=checkpoint.norm(f"{at}.attention.output.LayerNorm"),
        up=checkpoint.linear(f"{at}.intermediate.dense"),
        down=checkpoint.linear(f"{at}.output.dense"),
        output_norm=checkpoint.norm(f"{at}.output.LayerNorm"),
    )
