"""Weights in every layout: the library's vectors, or one line that names the file."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sidecar.models.errors import ModelError
from sidecar.models.folder.weights import open_weights

from ..later import Later
from .folders import (
    FLOAT32,
    TEXTS,
    WHOLE,
    MakeModel,
    Tensors,
    broken,
    by_torch,
    copy,
    embedded,
    expected,
    rewrite,
    served,
    without,
)

torch = Later("torch")
load_file = Later("safetensors.torch", "load_file")
save_file = Later("safetensors.torch", "save_file")
CrossEncoder = Later("sentence_transformers", "CrossEncoder")


@pytest.fixture(scope="module")
def bert(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return copy(bert, tmp_path / "model")


def in_type(dtype: str) -> Callable[[Path], None]:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}

    return lambda folder: rewrite(folder, change)


def in_shards(folder: Path) -> None:
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {
        "metadata": {},
        "weight_map": {name: file for file, part in parts.items() for name in part},
    }
    (folder / f"{WHOLE}.index.json").write_text(json.dumps(index))


def pickled(folder: Path, *, zipped: bool = True) -> None:
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)


def pickled_as_of_old(folder: Path) -> None:
    pickled(folder, zipped=False)


def pickled_in_shards(folder: Path) -> None:
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    names, files = sorted(tensors), ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"]
    for number, file in enumerate(files):
        torch.save({name: tensors[name] for name in names[number::2]}, folder / file)
    index = {
        "metadata": {},
        "weight_map": {name: files[number % 2] for number, name in enumerate(names)},
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def beside_another_format(folder: Path) -> None:
    """Add another format next to safetensors, which the library prefers."""
    other = {name: tensor + 1 for name, tensor in load_file(folder / WHOLE).items()}
    torch.save(other, folder / "pytorch_model.bin")
    (folder / f"{WHOLE}.index.json").write_text('{"weight_map": {"x": "nowhere.safetensors"}}')


def named_as_of_old(folder: Path) -> None:
    def renamed(name: str) -> str:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")

    rewrite(folder, lambda tensors: {renamed(name): tensor for name, tensor in tensors.items()})


def with_what_training_left(folder: Path) -> None:
    """Add a masked-language head and a buffer of older versions; remove the pooler."""
    more = {"cls.predictions.bias": torch.ones(9), "embeddings.position_ids": torch.arange(98)}
    rewrite(folder, lambda tensors: {**without("pooler")(tensors), **more})


def in_a_folder_of_its_own(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", WHOLE, "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(inner / name)
    (folder / "config.json").write_text('{"__version__": "2.0.0"}')
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = inner.name
    (folder / "modules.json").write_text(json.dumps(modules))


LAYOUTS = [
    in_type("bfloat16"), in_type("float16"), in_type("float64"), in_shards, pickled,
    pickled_as_of_old, pickled_in_shards, beside_another_format, named_as_of_old,
    with_what_training_left, in_a_folder_of_its_own,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_librarys_vectors(
    folder: Path, tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    """Weights in any layout give the library's vectors, on our graph and on the slow path."""
    layout(folder)
    reference = expected(folder)
    np.testing.assert_allclose(embedded(served(folder, tmp_path)), reference, atol=1e-5)
    np.testing.assert_allclose(embedded(by_torch(folder)), reference, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "prefix"),
    [("roberta", "roberta."), ("xlm-roberta", "roberta."), ("mpnet", "mpnet."),
     ("distilbert", "distilbert.")],
)  # fmt: skip
def test_a_prefix_may_stand_before_every_name(
    make_model: MakeModel, tmp_path: Path, family: str, prefix: str
) -> None:
    """Tensor names may have a prefix, as in checkpoints with a head, or none."""
    folder = make_model(family)
    plain = embedded(served(folder, tmp_path))
    rewrite(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    np.testing.assert_array_equal(embedded(served(folder, tmp_path)), plain)
    types = {"type_vocab_size": 2} if "roberta" in family else {}
    reranker = make_model(family, classifier=True, **types)
    score = CrossEncoder(str(reranker), device="cpu", model_kwargs=FLOAT32).predict([TEXTS[:2]])
    rewrite(reranker, lambda tensors: {n.removeprefix(prefix): t for n, t in tensors.items()})
    model = served(reranker, tmp_path)
    ours = model.forward(model.tokenize([(TEXTS[0], TEXTS[1])])[0])
    np.testing.assert_allclose(ours, score, atol=1e-5)


def damages() -> Iterator[tuple[Callable[[Path], None], str]]:
    def index(shard: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / WHOLE).unlink()
            (folder / f"{WHOLE}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))

        return write

    def instead(content: bytes) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / WHOLE).unlink()
            (folder / "pytorch_model.bin").write_bytes(content)

        return write

    def directory(folder: Path) -> None:
        (folder / WHOLE).unlink()
        (folder / WHOLE).mkdir()

    def cut(folder: Path) -> None:
        (folder / WHOLE).write_bytes((folder / WHOLE).read_bytes()[:-7])

    yield index("model-1.safetensors"), "a shard that does not exist: model-1.safetensors"
    yield index("../model.safetensors"), "a shard outside its folder: ../model.safetensors"
    yield index("/etc/passwd"), "a shard outside its folder: /etc/passwd"
    yield instead(b""), "pytorch_model.bin is not a weights-only file"
    yield instead(b"PK\x03\x04 and so on"), "pytorch_model.bin is not a weights-only file"
    yield directory, "has no weights"
    yield cut, "model.safetensors is not a complete safetensors file"
    yield lambda folder: (folder / WHOLE).write_bytes(b""), "is not a complete safetensors file"
    yield lambda folder: (folder / WHOLE).unlink(), "has no weights"


@pytest.mark.parametrize(("damage", "message"), list(damages()))
def test_weights_that_cannot_be_read_are_named(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Weights that cannot be read are reported in one line with the file's name."""
    damage(folder)
    text = broken(folder)
    assert message in text
    assert str(folder) in text


def test_code_is_not_unpickled(folder: Path) -> None:
    """A file of torch's that holds anything but weights is refused, since it could run code."""
    (folder / WHOLE).unlink()
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    assert "not a weights-only file" in broken(folder)


def test_without_torch_its_format_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch, weights in its format are refused with what to install."""
    pickled(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin .* extra `server`"):
        open_weights(folder)


def test_any_float_is_widened_exactly(tmp_path: Path) -> None:
    """Any float is widened as by torch, bit for bit, in scalars and empty tensors, too."""
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    tensors = {str(kind): torch.randn(5, 3).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(1.5, dtype=torch.bfloat16), "empty": torch.zeros(0, 3)}
    save_file(tensors, tmp_path / WHOLE)
    weights = open_weights(tmp_path)
    assert weights.names() == tensors.keys()
    for name, tensor in tensors.items():
        assert weights.shape(name) == tuple(tensor.shape)
        np.testing.assert_array_equal(weights.tensor(name), tensor.float().numpy())
        assert weights.tensor(name).dtype == np.float32


def test_of_a_tensor_in_two_shards_the_later_counts(tmp_path: Path) -> None:
    """Of a tensor in two shards, the one in the last file by name counts, as in the library."""
    for number, file in enumerate(("b.safetensors", "a.safetensors", "c.safetensors")):
        own = {"same": torch.full((2,), float(number)), file: torch.zeros(1)}
        save_file(own, tmp_path / file)
    names = ["c.safetensors", "a.safetensors", "b.safetensors"]
    index = {"weight_map": {"same": "a.safetensors", **{name: name for name in names}}}
    (tmp_path / f"{WHOLE}.index.json").write_text(json.dumps(index))
    weights = open_weights(tmp_path)
    assert weights.names() == {"same", *names}
    assert weights.tensor("same").tolist() == [2, 2]
