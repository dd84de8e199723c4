"""Every family and every variant of it that our graph computes, beside the library's classes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.encoder import fields
from sidecar.encoder.families import FAMILIES
from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.config import DEFAULTS
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder

from ..later import Later
from .by_library import differences

transformers = Later("transformers")
ACT2FN = Later("transformers.activations", "ACT2FN")

MakeModel = Callable[..., Path]
# So that the library, which does not mind the table of positions, runs over its end nowhere.
LONG = {"max_position_embeddings": 400}


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_the_librarys(make_model: MakeModel, family: str, tmp_path: Path) -> None:
    """Embedders give the library's vectors and rerankers its scores, text by text."""
    types = {"type_vocab_size": 2} if family in {"roberta", "xlm-roberta"} else {}
    assert differences(make_model(family, **LONG), tmp_path).max() <= 1e-5
    assert differences(make_model(family, classifier=True, **LONG, **types), tmp_path).max() <= 1e-5


@pytest.mark.parametrize("family", ["roberta", "camembert", "mpnet"])
def test_a_padding_id_is_the_configs(make_model: MakeModel, family: str, tmp_path: Path) -> None:
    """Positions begin behind it, and it has a row of its own wherever it stands in a text."""
    for padding_id in (0, 5, 101):  # [PAD], which is in a text; none; [CLS]
        folder = make_model(family, **LONG, pad_token_id=padding_id)
        assert differences(folder, tmp_path).max() <= 1e-5, padding_id
        first = 2 if family == "mpnet" else padding_id + 1
        config = json.loads((folder / "config.json").read_text())
        assert FAMILIES[family].longest_row(config) == 400 - first


def test_mpnets_padding_id_is_one(make_model: MakeModel, tmp_path: Path) -> None:
    """It is where "[PAD]" has this id, whatever the config says."""
    folder = make_model("mpnet", **LONG, pad_token_id=0)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["how"], vocabulary["[unused0]"] = vocabulary["[unused0]"], vocabulary["how"]
    path.write_text(json.dumps(tokenizer))
    assert vocabulary["how"] == 1
    assert differences(folder, tmp_path).max() <= 1e-5


def test_activations_are_the_librarys(make_model: MakeModel, tmp_path: Path) -> None:
    """Each that is known gives the library's vectors; its names are transformers' own."""
    assert set(fields._ACTIVATIONS) <= set(ACT2FN.keys())
    for name in sorted(fields._ACTIVATIONS):
        assert differences(make_model(hidden_act=name), tmp_path).max() <= 1e-5, name
    folder = make_model("distilbert", activation="gelu_new")
    assert differences(folder, tmp_path).max() <= 1e-5


# What transformers' classes have and no vector or score depends on, in a model that is served.
_CHANGE_NOTHING = {
    "attention_dropout", "attention_probs_dropout_prob", "bos_token_id", "chunk_size_feed_forward",
    "classifier_dropout", "dropout", "dtype", "eos_token_id", "hidden_dropout_prob", "id2label",
    "initializer_range", "label2id", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "qa_dropout", "return_dict", "seq_classif_dropout", "sinusoidal_pos_embds",
    "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj",
    "tie_word_embeddings", "transformers_version", "use_cache", "architectures",
}  # fmt: skip


def test_every_field_of_a_config_is_accounted_for() -> None:
    """It is read, refused by name with another value, or known to change nothing."""
    for family in FAMILIES:
        read = DEFAULTS[family].keys() | fields._ONLY.keys()
        own = {
            field.name for field in dataclasses.fields(transformers.AutoConfig.for_model(family))
        }
        assert own - read - _CHANGE_NOTHING == set(), family


def test_a_plain_electra_has_no_projection(make_model: MakeModel, tmp_path: Path) -> None:
    """Tables as wide as the layers need none, and an ERNIE without tasks no row for them."""
    assert differences(make_model("electra", embedding_size=64), tmp_path).max() <= 1e-5
    assert differences(make_model("ernie", use_task_id=False), tmp_path).max() <= 1e-5


def test_mpnet_uses_32_buckets_of_more(make_model: MakeModel, tmp_path: Path) -> None:
    """The library's class counts to 32, whatever the size of the table."""
    folder = make_model("mpnet", **LONG, relative_attention_num_buckets=40)
    assert differences(folder, tmp_path).max() <= 1e-5
    few = make_model("mpnet", relative_attention_num_buckets=16)
    with pytest.raises(UnknownArchitectureError, match="16 buckets of distances"):
        read_encoder(few, describe(few))


def test_positions_need_a_padding_id(make_model: MakeModel) -> None:
    """RoBERTa without one, or with one behind the table's end, has no row for a token."""
    for padding_id in (None, 97):
        folder = make_model("roberta")
        edit(folder, pad_token_id=padding_id)
        with pytest.raises(UnknownArchitectureError, match=r"pad_token_id is None|padding id 97"):
            describe(folder)
