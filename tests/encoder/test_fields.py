"""Validation of the mathematics that a config states, and its maximum row length."""

import numpy as np
import pytest

from sidecar.encoder import fields
from sidecar.encoder.architecture import UnsupportedModelError
from sidecar.encoder.families import FAMILIES
from sidecar.encoder.mpnet import distance_bias
from sidecar.models.folder.config import DEFAULTS

OTHERS = {
    "add_cross_attention": True,
    "is_decoder": True,
    "is_encoder_decoder": True,
    "position_embedding_type": "relative_key_query",
    "quantization_config": {"bits": 8},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_mathematics_are_refused_by_name(name: str) -> None:
    """Every family refuses unsupported mathematics by field name; null means the default."""
    fields.check_mathematics({})
    fields.check_mathematics(dict.fromkeys(OTHERS))
    fields.check_mathematics({"position_embedding_type": "absolute", "is_decoder": False})
    for family, defaults in DEFAULTS.items():
        if family not in FAMILIES:
            continue
        config = {**defaults, "is_decoder": False, name: OTHERS[name]}
        with pytest.raises(UnsupportedModelError, match=rf"^{name} is .* \(supported: "):
            FAMILIES[family].read(config, lambda _: np.zeros((32, 4), np.float32), None)


def test_an_activation_that_is_not_known_is_refused_by_name() -> None:
    for name in fields._ACTIVATIONS:
        assert fields.activation_of({"act": name}, "act") == fields._ACTIVATIONS[name]
    with pytest.raises(UnsupportedModelError, match=r"^act is 'tanh' \(supported: gelu, "):
        fields.activation_of({"act": "tanh"}, "act")


def test_the_longest_row_is_what_the_table_of_positions_bears() -> None:
    """If positions start after the padding row, the rows up to it do not count."""
    for family in FAMILIES:
        longest = FAMILIES[family].longest_row
        begins = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}.get(family, -1)
        assert longest({"max_position_embeddings": 40, "pad_token_id": 1}) == 39 - begins, family
        if begins < 0:
            continue
        assert longest({"max_position_embeddings": 3, "pad_token_id": 1}) == 1
        with pytest.raises(UnsupportedModelError, match="leaves no position after padding id 1"):
            longest({"max_position_embeddings": 2, "pad_token_id": 1})
    roberta = FAMILIES["roberta"].longest_row
    assert roberta({"max_position_embeddings": 40, "pad_token_id": 0}) == 39
    for none in (None, -1):
        with pytest.raises(UnsupportedModelError, match=f"pad_token_id is {none}"):
            roberta({"max_position_embeddings": 40, "pad_token_id": none})


def test_a_distances_bucket_is_exact_near_by_and_one_for_all_that_is_far() -> None:
    """Buckets are exact nearby and shared far away: 0-15 up to the query, 16-31 after it."""
    bias = distance_bias(np.arange(64, dtype=np.float32).reshape(32, 2), 300)
    assert bias.shape == (2, 599)
    assert (bias[1] == bias[0] + 1).all()
    buckets = {d: int(bias[0, 299 + d]) // 2 for d in (-299, -128, -8, -7, -1, 0, 1, 7, 8, 299)}
    assert buckets == {
        -299: 15, -128: 15, -8: 8, -7: 7, -1: 1, 0: 0, 1: 17, 7: 23, 8: 24, 299: 31,
    }  # fmt: skip


def test_a_table_of_too_few_buckets_is_refused() -> None:
    def read(buckets: int) -> object:
        return FAMILIES["mpnet"].read(
            DEFAULTS["mpnet"], lambda _: np.zeros((buckets, 12), np.float32), None
        )

    read(32)
    with pytest.raises(UnsupportedModelError, match="31 distance buckets, at least 32 needed"):
        read(31)
