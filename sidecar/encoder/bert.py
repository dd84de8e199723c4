"""BERT (MiniLM, e5, bge-*-en), and the families that use the same names.

Names and mathematics follow Devlin et al., 2018 (arXiv:1810.04805), Liu et al., 2019
(arXiv:1907.11692: RoBERTa, also XLM-R and CamemBERT), Clark et al., 2020 (arXiv:2003.10555:
ELECTRA) and Sun et al., 2019 (arXiv:1904.09223: ERNIE), as implemented by `BertModel` and its
relatives in transformers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sidecar.encoder.architecture import (
    Activation,
    Classifier,
    Encoder,
    Float32,
    Head,
    UnsupportedModelError,
)
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import check_mathematics, rows_behind
from sidecar.encoder.names import Names, read_encoder

_NAMES = Names(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
    has_token_types=True,
)


def longest_bert_row(config: Mapping[str, Any]) -> int:
    """Return the number of tokens for which the position table has rows."""
    return int(config["max_position_embeddings"])


def longest_roberta_row(config: Mapping[str, Any]) -> int:
    """Return the same; positions start after the padding row."""
    return rows_behind(config, _padding_id(config))


def read_bert(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder that `config` and the tensors describe; `head` is None for a reranker.

    Raises `UnsupportedModelError` for a variant with different mathematics.
    """
    checkpoint = _checkpoint(config, tensor)
    return read_encoder(config, checkpoint, _NAMES, head or _pooled(checkpoint))


def read_ernie(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does; every token has task 0, as in transformers."""
    checkpoint = _checkpoint(config, tensor)
    encoder = read_encoder(config, checkpoint, _NAMES, head or _pooled(checkpoint))
    if not config["use_task_id"]:
        return encoder
    tables = encoder.embeddings
    task = checkpoint.tensor("embeddings.task_type_embeddings.weight")[0]
    return replace(encoder, embeddings=replace(tables, token_type=tables.token_type + task))


def read_electra(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does; its tables may be narrower than its layers."""
    checkpoint = _checkpoint(config, tensor)
    encoder = read_encoder(
        config, checkpoint, _NAMES, head or _first_token(checkpoint, Activation.GELU)
    )
    if config["embedding_size"] == config["hidden_size"]:
        return encoder
    projection = checkpoint.linear("embeddings_project")
    return replace(encoder, embeddings=replace(encoder.embeddings, projection=projection))


def read_roberta(
    config: Mapping[str, Any], tensor: Callable[[str], Float32], head: Head | None
) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    checkpoint = _checkpoint(config, tensor)
    encoder = read_encoder(
        config, checkpoint, _NAMES, head or _first_token(checkpoint, Activation.TANH)
    )
    tables = replace(encoder.embeddings, padding_id=_padding_id(config))
    return replace(encoder, embeddings=tables)


def _padding_id(config: Mapping[str, Any]) -> int:
    padding_id = config["pad_token_id"]
    if padding_id is None or padding_id < 0:
        raise UnsupportedModelError(f"pad_token_id is {padding_id}, but positions start after it")
    return int(padding_id)


def _checkpoint(config: Mapping[str, Any], tensor: Callable[[str], Float32]) -> Checkpoint:
    check_mathematics(config)
    return Checkpoint(tensor, float(config["layer_norm_eps"]))


def _pooled(checkpoint: Checkpoint) -> Classifier:
    return checkpoint.classifier("pooler.dense", "classifier", Activation.TANH)


def _first_token(checkpoint: Checkpoint, activation: Activation) -> Classifier:
    return checkpoint.classifier("classifier.dense", "classifier.out_proj", activation)
