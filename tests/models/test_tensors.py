"""Every tensor that a model needs exists, every existing one is used, and all hold numbers."""

from pathlib import Path

import numpy as np
import pytest

from sidecar.models.errors import ModelError

from ..later import Later
from .folders import (
    WHOLE,
    MakeModel,
    Tensors,
    broken,
    by_torch,
    copy,
    edit,
    embedded,
    expected,
    refused,
    rewrite,
    served,
    without,
)

torch = Later("torch")
load_file = Later("safetensors.torch", "load_file")
save_file = Later("safetensors.torch", "save_file")


@pytest.fixture(scope="module")
def bert(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return copy(bert, tmp_path / "model")


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    """A missing tensor is named on both paths: transformers would fill it in at random."""
    original = load_file(folder / WHOLE)
    for name in sorted(original):
        if name.startswith("pooler."):
            continue
        save_file({other: t for other, t in original.items() if other != name}, folder / WHOLE)
        assert f"tensor {name!r} is missing" in refused(folder)
    with pytest.raises(ModelError, match=r"lacks tensor .*, which would be random"):
        by_torch(folder)


def test_a_tensor_that_nothing_uses_is_named(folder: Path, tmp_path: Path) -> None:
    """An unused tensor is refused by our graph; the slow path ignores it, as the library does."""
    rewrite(folder, lambda tensors: {**tensors, "encoder.layer.0.adapter": torch.ones(3)})
    assert "unexpected tensor encoder.layer.0.adapter" in refused(folder)
    np.testing.assert_allclose(embedded(by_torch(folder)), expected(folder), atol=1e-5)


def test_layers_beyond_the_configs_are_refused(folder: Path) -> None:
    """Layers beyond the config's are refused, though the library would silently ignore them."""
    edit(folder / "config.json", num_hidden_layers=1)
    assert "encoder.layer.1.attention" in refused(folder)
    with pytest.raises(ModelError, match=r"encoder\.layer\.1.*of a layer that config\.json lacks"):
        by_torch(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocab_size", 3_999, "word_embeddings"),
        ("max_position_embeddings", 97, "position_embeddings"),
        ("type_vocab_size", 3, "token_type_embeddings"),
        ("hidden_size", 32, "embeddings"),
        ("intermediate_size", 127, "feed-forward up weight"),
    ],
)
def test_shapes_are_the_configs(folder: Path, key: str, value: int, message: str) -> None:
    """A folder whose files belong to two models is refused on both paths, with the shapes."""
    edit(folder / "config.json", **{key: value})
    text = refused(folder)
    assert message in text
    assert "has shape" in text
    with pytest.raises(ModelError, match="cannot load"):
        by_torch(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    """A tensor with a single NaN or infinity is refused by name."""
    name = "encoder.layer.1.output.dense.bias"

    def spoilt(tensors: Tensors) -> Tensors:
        tensors[name][3] = value
        return tensors

    rewrite(folder, spoilt)
    assert f"{folder}: tensor {name!r} holds NaN or infinity" in broken(folder)
    with pytest.raises(ModelError, match=rf"{name}' holds NaN or infinity"):
        by_torch(folder)


def test_whole_numbers_are_left_to_the_library(folder: Path) -> None:
    """Integer weights, which others have quantized, are left to the library."""
    name = "encoder.layer.0.output.dense.weight"
    rewrite(folder, lambda tensors: {**tensors, name: tensors[name].to(torch.int8)})
    assert f"tensor {name!r} is I8" in refused(folder)


def test_one_name_twice_is_refused(folder: Path) -> None:
    """A tensor that exists both with and without the prefix is refused as ambiguous."""
    name = "embeddings.LayerNorm.bias"
    rewrite(folder, lambda tensors: {**tensors, f"bert.{name}": tensors[name] + 1})
    assert f"{name!r} is stored twice" in refused(folder)


def test_a_reranker_without_its_head_is_refused(make_model: MakeModel) -> None:
    """A reranker without its head is refused on our graph and on the slow path."""
    for family, head in (("bert", "classifier."), ("electra", "classifier.out_proj.")):
        folder = make_model(family, classifier=True)
        rewrite(folder, without(head))
        with pytest.raises(ModelError, match="lacks tensor classifier"):
            by_torch(folder, "rerank")
    known = make_model(classifier=True)
    rewrite(known, without("pooler."))
    assert "'pooler.dense.weight' is missing" in refused(known)
    with pytest.raises(ModelError, match=r"lacks tensor bert\.pooler"):
        by_torch(known, "rerank")


def test_code_of_its_own_beside_a_known_class(folder: Path, tmp_path: Path) -> None:
    """A model with code of its own is served only if a known class reads all of its tensors."""
    auto = {"AutoConfig": "configuration_own.Own", "AutoModel": "modeling_own.OwnModel"}
    edit(folder / "config.json", auto_map=auto)
    np.testing.assert_allclose(embedded(served(folder, tmp_path)), expected(folder), atol=1e-5)
    np.testing.assert_allclose(embedded(by_torch(folder)), expected(folder), atol=1e-5)
    rewrite(folder, lambda tensors: {**tensors, "encoder.gate.weight": torch.ones(3)})
    assert "encoder.gate.weight" in refused(folder)
    with pytest.raises(ModelError, match=r"auto_map.*BertModel does not use .*encoder\.gate"):
        by_torch(folder)


def test_ids_beyond_the_table_are_refused(folder: Path, tmp_path: Path) -> None:
    """A tokenizer with ids beyond the embedding table is refused, and the error has the numbers."""
    tables = without("word_embeddings")
    rows = load_file(folder / WHOLE)["embeddings.word_embeddings.weight"][:3_999].clone()
    rewrite(folder, lambda ts: {**tables(ts), "embeddings.word_embeddings.weight": rows})
    edit(folder / "config.json", vocab_size=3_999)
    message = r"ids up to 3999, but the embedding table has 3999 rows"
    with pytest.raises(ModelError, match=message):
        served(folder, tmp_path)
    with pytest.raises(ModelError, match=message):
        by_torch(folder)
