"""Every family and variant that our graph computes, compared with the library's classes."""

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
# Long enough that the library, which does not check, never exceeds the table of positions.
LONG = {"max_position_embeddings": 400}


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_the_librarys(make_model: MakeModel, family: str, tmp_path: Path) -> None:
    """In every family, embedders give the library's vectors and rerankers its scores."""
    types = {"type_vocab_size": 2} if family in {"roberta", "xlm-roberta"} else {}
    assert differences(make_model(family, **LONG), tmp_path).max() <= 1e-5
    assert differences(make_model(family, classifier=True, **LONG, **types), tmp_path).max() <= 1e-5


@pytest.mark.parametrize("family", ["roberta", "camembert", "mpnet"])
def test_a_padding_id_is_the_configs(make_model: MakeModel, family: str, tmp_path: Path) -> None:
    """Positions begin after the config's padding id, which may also occur within a text."""
    for padding_id in (0, 5, 101):  # [PAD], which is in a text; none; [CLS]
        folder = make_model(family, **LONG, pad_token_id=padding_id)
        assert differences(folder, tmp_path).max() <= 1e-5, padding_id
        first = 2 if family == "mpnet" else padding_id + 1
        config = json.loads((folder / "config.json").read_text())
        assert FAMILIES[family].longest_row(config) == 400 - first


def test_mpnets_padding_id_is_one(make_model: MakeModel, tmp_path: Path) -> None:
    """MPNet's padding id is 1, whatever the config says and whichever token has that id."""
    folder = make_model("mpnet", **LONG, pad_token_id=0)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["how"], vocabulary["[unused0]"] = vocabulary["[unused0]"], vocabulary["how"]
    path.write_text(json.dumps(tokenizer))
    assert vocabulary["how"] == 1
    assert differences(folder, tmp_path).max() <= 1e-5


def test_activations_are_the_librarys(make_model: MakeModel, tmp_path: Path) -> None:
    """Every known activation gives the library's vectors, under transformers' name for it."""
    assert set(fields._ACTIVATIONS) <= set(ACT2FN.keys())
    for name in sorted(fields._ACTIVATIONS):
        assert differences(make_model(hidden_act=name), tmp_path).max() <= 1e-5, name
    folder = make_model("distilbert", activation="gelu_new")
    assert differences(folder, tmp_path).max() <= 1e-5


# Fields of transformers' classes that no vector or score of a served model depends on.
_CHANGE_NOTHING = {
    "attention_dropout", "attention_probs_dropout_prob", "bos_token_id", "chunk_size_feed_forward",
    "classifier_dropout", "dropout", "dtype", "eos_token_id", "hidden_dropout_prob", "id2label",
    "initializer_range", "label2id", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "qa_dropout", "return_dict", "seq_classif_dropout", "sinusoidal_pos_embds",
    "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj",
    "tie_word_embeddings", "transformers_version", "use_cache", "architectures",
}  # fmt: skip


def test_every_field_of_a_config_is_accounted_for() -> None:
    """Every config field is read, refused by name if it has another value, or without effect."""
    for family in FAMILIES:
        read = DEFAULTS[family].keys() | fields._ONLY.keys()
        own = {
            field.name for field in dataclasses.fields(transformers.AutoConfig.for_model(family))
        }
        assert own - read - _CHANGE_NOTHING == set(), family


def test_a_plain_electra_has_no_projection(make_model: MakeModel, tmp_path: Path) -> None:
    """ELECTRA without a projection and ERNIE without task ids give the library's vectors."""
    assert differences(make_model("electra", embedding_size=64), tmp_path).max() <= 1e-5
    assert differences(make_model("ernie", use_task_id=False), tmp_path).max() <= 1e-5


def test_mpnet_uses_32_buckets_of_more(make_model: MakeModel, tmp_path: Path) -> None:
    """MPNet uses 32 buckets of a larger table, as the library's class does."""
    folder = make_model("mpnet", **LONG, relative_attention_num_buckets=40)
    assert differences(folder, tmp_path).max() <= 1e-5
    few = make_model("mpnet", relative_attention_num_buckets=16)
    with pytest.raises(UnknownArchitectureError, match="16 distance buckets"):
        read_encoder(few, describe(few))


def test_positions_need_a_padding_id(make_model: MakeModel) -> None:
    """A RoBERTa without a padding id, or with one beyond the table of positions, is refused."""
    for padding_id in (None, 97):
        folder = make_model("roberta")
        edit(folder, pad_token_id=padding_id)
        with pytest.raises(UnknownArchitectureError, match=r"pad_token_id is None|padding id 97"):
            describe(folder)
