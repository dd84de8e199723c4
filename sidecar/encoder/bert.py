"""BERT (MiniLM, e5, bge-*-en), and the families that name their parts alike.

Names and mathematics: Devlin et al., 2018 (arXiv:1810.04805), Liu et al., 2019
(arXiv:1907.11692: RoBERTa, which XLM-R and CamemBERT are too), Clark et al., 2020
(arXiv:2003.10555: ELECTRA) and Sun et al., 2019 (arXiv:1904.09223: ERNIE), as laid out by
transformers' `BertModel` and its kin.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sidecar.encoder.architecture import (
    Activation,
    Classifier,
    Embeddings,
    Encoder,
    Float32,
    Head,
    Layer,
    Layers,
)
from sidecar.encoder.checkpoint import Checkpoint
from sidecar.encoder.fields import Fields

_BERT: Mapping[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
_ROBERTA = {**_BERT, "vocab_size": 50_265, "pad_token_id": 1}
_XLM_ROBERTA = {**_BERT, "pad_token_id": 1}
_ELECTRA = {
    **_BERT,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
_ERNIE = {**_BERT, "use_task_id": False, "task_type_vocab_size": 3}

Tensors = Callable[[str], Float32]
"""Returns a checkpoint's tensor by name, and raises `KeyError` for one that lacks."""


def longest_bert_row(config: Mapping[str, Any]) -> int:
    """Return how many tokens the table of positions has rows for."""
    return Fields(config, _BERT).count("max_position_embeddings")


def longest_roberta_row(config: Mapping[str, Any]) -> int:
    """Return the same: positions begin behind the padding's own row."""
    fields = Fields(config, _XLM_ROBERTA)
    first = fields.count("pad_token_id", least=0) + 1
    return fields.count("max_position_embeddings", least=first + 1) - first


def read_bert(config: Mapping[str, Any], tensor: Tensors, head: Head | None) -> Encoder:
    """Return the encoder that `config` and its tensors describe; `head` None for a reranker.

    Raises `UnsupportedModelError` for a variant whose mathematics differ, `KeyError` for a
    checkpoint that lacks a tensor, `ValueError` for fields or shapes that do not fit.
    """
    part = _Reader(Fields(config, _BERT), tensor)
    return part.encoder(head or part.pooled())


def read_ernie(config: Mapping[str, Any], tensor: Tensors, head: Head | None) -> Encoder:
    """Return the encoder, as `read_bert` does; every token is of task 0, as in the library."""
    fields = Fields(config, _ERNIE)
    part = _Reader(fields, tensor)
    encoder = part.encoder(head or part.pooled())
    if not fields.flag("use_task_id"):
        return encoder
    tasks = part.table("task_type_embeddings", "task_type_vocab_size")
    types = encoder.embeddings.token_type
    return replace(encoder, embeddings=replace(encoder.embeddings, token_type=types + tasks[0]))


def read_electra(config: Mapping[str, Any], tensor: Tensors, head: Head | None) -> Encoder:
    """Return the encoder, as `read_bert` does; its tables may be narrower than its layers."""
    fields = Fields(config, _ELECTRA)
    part = _Reader(fields, tensor, fields.count("embedding_size"))
    encoder = part.encoder(head or part.first_token(Activation.GELU))
    if part.width == part.hidden:
        return encoder
    projection = part.checkpoint.linear("embeddings_project", part.hidden, part.width)
    return replace(encoder, embeddings=replace(encoder.embeddings, projection=projection))


def read_roberta(config: Mapping[str, Any], tensor: Tensors, head: Head | None) -> Encoder:
    """Return the encoder, as `read_bert` does."""
    return _read_roberta(Fields(config, _ROBERTA), tensor, head)


def read_xlm_roberta(config: Mapping[str, Any], tensor: Tensors, head: Head | None) -> Encoder:
    """Return the encoder, as `read_bert` does; CamemBERT's as well."""
    return _read_roberta(Fields(config, _XLM_ROBERTA), tensor, head)


def _read_roberta(fields: Fields, tensor: Tensors, head: Head | None) -> Encoder:
    part = _Reader(fields, tensor)
    encoder = part.encoder(head or part.first_token(Activation.TANH))
    padding_id = fields.count("pad_token_id", least=0)
    return replace(encoder, embeddings=replace(encoder.embeddings, padding_id=padding_id))


class _Reader:
    """Reads the parts that all of them have."""

    def __init__(self, fields: Fields, tensor: Tensors, width: int | None = None) -> None:
        self._fields = fields
        self.checkpoint = Checkpoint(tensor, fields.number("layer_norm_eps"))
        self.hidden = fields.count("hidden_size")
        self.width = width or self.hidden

    def table(self, name: str, rows: str) -> Float32:
        return self.checkpoint.table(f"embeddings.{name}", self._fields.count(rows), self.width)

    def encoder(self, head: Head | Classifier) -> Encoder:
        return Encoder(
            embeddings=Embeddings(
                word=self.table("word_embeddings", "vocab_size"),
                position=self.table("position_embeddings", "max_position_embeddings"),
                token_type=self.table("token_type_embeddings", "type_vocab_size"),
                norm=self.checkpoint.norm("embeddings.LayerNorm", self.width),
            ),
            layers=Layers(self._fields.count("num_hidden_layers"), self._layer),
            heads=self._fields.heads("num_attention_heads", self.hidden),
            head=head,
            activation=self._fields.activation("hidden_act"),
        )

    def pooled(self) -> Classifier:
        return self._classifier("pooler.dense", "classifier", Activation.TANH)

    def first_token(self, activation: Activation) -> Classifier:
        return self._classifier("classifier.dense", "classifier.out_proj", activation)

    def _classifier(self, dense: str, output: str, activation: Activation) -> Classifier:
        return Classifier(
            self.checkpoint.linear(dense, self.hidden, self.hidden),
            self.checkpoint.linear(output, 1, self.hidden),
            activation,
        )

    def _layer(self, index: int) -> Layer:
        at, own, hidden = f"encoder.layer.{index}", self.checkpoint, self.hidden
        attention, between = f"{at}.attention", self._fields.count("intermediate_size")
        names = tuple(f"{attention}.self.{name}" for name in ("query", "key", "value"))
        return Layer(
            query_key_value=own.stacked(names, hidden),
            attention_output=own.linear(f"{attention}.output.dense", hidden, hidden),
            attention_norm=own.norm(f"{attention}.output.LayerNorm", hidden),
            up=own.linear(f"{at}.intermediate.dense", between, hidden),
            down=own.linear(f"{at}.output.dense", hidden, between),
            output_norm=own.norm(f"{at}.output.LayerNorm", hidden),
        )
