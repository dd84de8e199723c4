"""Every family and every variant of it that our graph computes, beside the library's classes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.activations import ACT2FN

from sidecar.encoder import bert, distilbert, fields, mpnet
from sidecar.encoder.families import FAMILIES
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from tests.models.by_library import differences

MakeModel = Callable[..., Path]
# So that the library, which does not mind the table of positions, runs over its end nowhere.
LONG = {"max_position_embeddings": 300}


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
        assert FAMILIES[family].longest_row(config) == 300 - first


def test_mpnets_padding_id_is_one(make_model: MakeModel, tmp_path: Path) -> None:
    """It is where "[PAD]" has this id, whatever the config says."""
    folder = make_model("mpnet", **LONG, pad_token_id=0)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["ok"], vocabulary["[unused0]"] = vocabulary["[unused0]"], vocabulary["ok"]
    path.write_text(json.dumps(tokenizer))
    assert vocabulary["ok"] == 1
    assert differences(folder, tmp_path).max() <= 1e-5


def test_activations_are_the_librarys(make_model: MakeModel, tmp_path: Path) -> None:
    """Each that is known gives the library's vectors; its names are transformers' own."""
    assert set(fields._ACTIVATIONS) <= set(ACT2FN)
    for name in sorted(fields._ACTIVATIONS):
        assert differences(make_model(hidden_act=name), tmp_path).max() <= 1e-5, name
    folder = make_model("distilbert", activation="gelu_new")
    assert differences(folder, tmp_path).max() <= 1e-5


def test_a_silent_config_is_the_classs(make_model: MakeModel, tmp_path: Path) -> None:
    """Fields that a config leaves out have the defaults of transformers' class."""
    for family, defaults in {
        "bert": bert._BERT,
        "roberta": bert._ROBERTA,
        "xlm-roberta": bert._XLM_ROBERTA,
        "camembert": bert._XLM_ROBERTA,
        "electra": bert._ELECTRA,
        "ernie": bert._ERNIE,
        "mpnet": mpnet._DEFAULTS,
        "distilbert": distilbert._DEFAULTS,
    }.items():
        own = transformers.AutoConfig.for_model(family)
        assert {name: getattr(own, name) for name in defaults} == defaults, family
    folder = make_model(num_attention_heads=12, hidden_size=96, layer_norm_eps=1e-12)
    config = json.loads((folder / "config.json").read_text())
    for name in ("num_attention_heads", "layer_norm_eps", "hidden_act", "type_vocab_size"):
        del config[name]
    (folder / "config.json").write_text(json.dumps(config))
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
    read = {
        *bert._ELECTRA, *bert._ERNIE, *bert._ROBERTA, *mpnet._DEFAULTS, *distilbert._DEFAULTS,
        *fields._ONLY,
    }  # fmt: skip
    for family in FAMILIES:
        own = {
            field.name for field in dataclasses.fields(transformers.AutoConfig.for_model(family))
        }
        assert own - read - _CHANGE_NOTHING == set(), family


def test_names_of_all_families_are_distilberts_too(make_model: MakeModel, tmp_path: Path) -> None:
    """Its config may have hidden_size and its kin in place of dim."""
    folder = make_model("distilbert")
    config = json.loads((folder / "config.json").read_text())
    config["hidden_size"] = config.pop("dim")
    config["num_attention_heads"] = config.pop("n_heads")
    (folder / "config.json").write_text(json.dumps(config))
    assert differences(folder, tmp_path).max() <= 1e-5


def test_a_plain_electra_has_no_projection(make_model: MakeModel, tmp_path: Path) -> None:
    """Tables as wide as the layers need none, and an ERNIE without tasks no row for them."""
    assert differences(make_model("electra", embedding_size=64), tmp_path).max() <= 1e-5
    assert differences(make_model("ernie", use_task_id=False), tmp_path).max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two', not a whole number"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7, which does not divide 64"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None, not a number"),
        ({"intermediate_size": 100}, r"has the shape \[128, 64\]; config.json says \[100, 64\]"),
        ({"vocab_size": 100}, r"has the shape \[30522, 64\]; config.json says \[100, 64\]"),
        ({"max_position_embeddings": 2.5}, "max_position_embeddings is 2.5"),
    ],
)
def test_a_field_that_cannot_be_is_named(
    make_model: MakeModel, change: dict[str, Any], told: str
) -> None:
    """A field of a wrong type, and one that the weights contradict, end in one line."""
    folder = make_model()
    edit(folder, **change)
    with pytest.raises(ModelError, match=told) as raised:
        read_encoder(folder, describe(folder))
    assert not isinstance(raised.value, UnknownArchitectureError)


def test_mpnet_uses_32_buckets_of_more(make_model: MakeModel, tmp_path: Path) -> None:
    """The library's class counts to 32, whatever the size of the table."""
    folder = make_model("mpnet", **LONG, relative_attention_num_buckets=40)
    assert differences(folder, tmp_path).max() <= 1e-5
    few = make_model("mpnet", relative_attention_num_buckets=16)
    with pytest.raises(ModelError, match="relative_attention_num_buckets is 16"):
        read_encoder(few, describe(few))
