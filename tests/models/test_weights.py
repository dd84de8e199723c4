"""Weights, however a folder stores them: the library's vectors, or a line that names the reason."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import open_weights, read_encoder
from sidecar.models.model import Model
from sidecar.models.model import load as load_artifact
from sidecar.models.order import Order
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.torch_model import Source, TorchModel
from sidecar.models.torch_model import load as load_with_torch

MakeModel = Callable[..., Path]
Tensors = dict[str, torch.Tensor]
TEXTS = ["a short text", "Another one, somewhat longer than the first; and naïve.", "word " * 200]
FLOAT32 = {"dtype": torch.float32}
WHOLE = "model.safetensors"


@pytest.fixture(scope="module")
def bert(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return copy(bert, tmp_path / "model")


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(folder / WHOLE)), folder / WHOLE)


def without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def served(folder: Path, tmp_path: Path) -> Model:
    """Return the model on our own graph, in FP32."""
    output = tmp_path / "artifact"
    precision = Precision("none", weight_bits=7, floor=0)
    prepare(Order(folder=folder, name="tiny", precision=precision, output=output))
    return load_artifact(output)


def by_torch(folder: Path, task: str = "embed") -> TorchModel:
    return load_with_torch(Source(folder, folder.name, task))  # type: ignore[arg-type]


def embedded(model: Model | TorchModel) -> np.ndarray:
    vectors = np.stack([model.forward(row) for row in model.tokenize(TEXTS)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def expected(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=FLOAT32)
    return np.asarray(model.encode(TEXTS, batch_size=1, normalize_embeddings=True))


def refused(folder: Path) -> str:
    """Return why our graph leaves the folder to the library."""
    with pytest.raises(UnknownArchitectureError) as caught:
        read_encoder(folder, describe(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def broken(folder: Path) -> str:
    """Return why nobody can read the folder's weights."""
    with pytest.raises(ModelError) as caught:
        read_encoder(folder, describe(folder))
    assert not isinstance(caught.value, UnknownArchitectureError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_type(dtype: torch.dtype) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda ts: {n: t.to(dtype) for n, t in ts.items()})


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
    """Of two the library takes safetensors."""
    other = {name: tensor + 1 for name, tensor in load_file(folder / WHOLE).items()}
    torch.save(other, folder / "pytorch_model.bin")
    (folder / f"{WHOLE}.index.json").write_text('{"weight_map": {"x": "nowhere.safetensors"}}')


def named_as_of_old(folder: Path) -> None:
    def renamed(name: str) -> str:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")

    rewrite(folder, lambda tensors: {renamed(name): tensor for name, tensor in tensors.items()})


def with_what_training_left(folder: Path) -> None:
    """A masked language model's head, a buffer of older versions, and no pooler."""
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
    in_type(torch.bfloat16), in_type(torch.float16), in_type(torch.float64), in_shards, pickled,
    pickled_as_of_old, pickled_in_shards, beside_another_format, named_as_of_old,
    with_what_training_left, in_a_folder_of_its_own,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_librarys_vectors(
    folder: Path, tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    """On our graph and on the slow path, in FP32, whatever the folder stores."""
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
    """As in checkpoints of a model with a head; of an embedder and of a reranker without it."""
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


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    """Each one of them, by both ways: transformers would make it up."""
    original = load_file(folder / WHOLE)
    for name in sorted(original):
        if name.startswith("pooler."):
            continue
        save_file({other: t for other, t in original.items() if other != name}, folder / WHOLE)
        assert f"tensor {name!r} is missing" in refused(folder)
    with pytest.raises(ModelError, match=r"lacks tensor .*, which would be random"):
        by_torch(folder)


def test_a_tensor_that_nothing_uses_is_named(folder: Path, tmp_path: Path) -> None:
    """It may be part of another architecture; the slow path leaves it out, as the library does."""
    rewrite(folder, lambda tensors: {**tensors, "encoder.layer.0.adapter": torch.ones(3)})
    assert "nothing here uses tensor encoder.layer.0.adapter" in refused(folder)
    np.testing.assert_allclose(embedded(by_torch(folder)), expected(folder), atol=1e-5)


def test_layers_beyond_the_configs_are_the_librarys_matter(folder: Path) -> None:
    """It computes as many as the config says, and so does the slow path."""
    edit(folder / "config.json", num_hidden_layers=1)
    assert "encoder.layer.1.attention" in refused(folder)
    np.testing.assert_allclose(embedded(by_torch(folder)), expected(folder), atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vocab_size", 30_521, "word_embeddings"),
        ("max_position_embeddings", 97, "position_embeddings"),
        ("type_vocab_size", 3, "token_type_embeddings"),
        ("hidden_size", 32, "embeddings"),
        ("intermediate_size", 127, "feed-forward up weight"),
    ],
)
def test_shapes_are_the_configs(folder: Path, key: str, value: int, said: str) -> None:
    """A folder whose files belong to two models is refused by both, with the shapes."""
    edit(folder / "config.json", **{key: value})
    text = refused(folder)
    assert said in text
    assert "has shape" in text
    with pytest.raises(ModelError, match="cannot load"):
        by_torch(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    """One NaN makes every vector NaN."""
    name = "encoder.layer.1.output.dense.bias"

    def spoilt(tensors: Tensors) -> Tensors:
        tensors[name][3] = value
        return tensors

    rewrite(folder, spoilt)
    assert f"{folder}: tensor {name!r} holds NaN or infinity" in broken(folder)
    with pytest.raises(ModelError, match=rf"{name}' holds NaN or infinity"):
        by_torch(folder)


def test_whole_numbers_are_left_to_the_library(folder: Path) -> None:
    """Weights that were quantized by others."""
    name = "encoder.layer.0.output.dense.weight"
    rewrite(folder, lambda tensors: {**tensors, name: tensors[name].to(torch.int8)})
    assert f"tensor {name!r} is I8" in refused(folder)


def test_one_name_twice_is_refused(folder: Path) -> None:
    """With and without the prefix: nobody can say which one counts."""
    name = "embeddings.LayerNorm.bias"
    rewrite(folder, lambda tensors: {**tensors, f"bert.{name}": tensors[name] + 1})
    assert f"{name!r} is there twice" in refused(folder)


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

    yield index("model-1.safetensors"), "a shard that is not there: model-1.safetensors"
    yield index("../model.safetensors"), "a shard outside its folder: ../model.safetensors"
    yield index("/etc/passwd"), "a shard outside its folder: /etc/passwd"
    yield instead(b""), "pytorch_model.bin is not a file of weights only"
    yield instead(b"PK\x03\x04 and so on"), "pytorch_model.bin is not a file of weights only"
    yield directory, "has no weights"
    yield cut, "model.safetensors is not a whole safetensors file"
    yield lambda folder: (folder / WHOLE).write_bytes(b""), "is not a whole safetensors file"
    yield lambda folder: (folder / WHOLE).unlink(), "has no weights"


@pytest.mark.parametrize(("damage", "said"), list(damages()))
def test_weights_that_cannot_be_read_are_named(
    folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    """In one line, with the file's name; the library could not read them either."""
    damage(folder)
    text = broken(folder)
    assert said in text
    assert str(folder) in text


def test_code_is_not_unpickled(folder: Path) -> None:
    """A file of torch's may hold calls to anything."""
    (folder / WHOLE).unlink()
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    assert "not a file of weights only" in broken(folder)


def test_without_torch_its_format_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra, or another format."""
    pickled(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin .* extra `server`"):
        open_weights(folder)


def test_any_float_is_widened_exactly(tmp_path: Path) -> None:
    """To what torch makes of it, to the bit; a scalar and an empty tensor, too."""
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


def test_a_reranker_without_its_head_is_refused(make_model: MakeModel) -> None:
    """On our graph, and on the slow path, of a family that only the library knows."""
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
    """Serves where that class reads every tensor, and nowhere else."""
    auto = {"AutoConfig": "configuration_own.Own", "AutoModel": "modeling_own.OwnModel"}
    edit(folder / "config.json", auto_map=auto)
    np.testing.assert_allclose(embedded(served(folder, tmp_path)), expected(folder), atol=1e-5)
    np.testing.assert_allclose(embedded(by_torch(folder)), expected(folder), atol=1e-5)
    rewrite(folder, lambda tensors: {**tensors, "encoder.gate.weight": torch.ones(3)})
    assert "encoder.gate.weight" in refused(folder)
    with pytest.raises(ModelError, match=r"auto_map.*BertModel does not use .*encoder\.gate"):
        by_torch(folder)


def test_ids_beyond_the_table_are_refused(folder: Path, tmp_path: Path) -> None:
    """The numbers of both are told; such an id would end a request, or read another's memory."""
    tables = without("word_embeddings")
    rows = load_file(folder / WHOLE)["embeddings.word_embeddings.weight"][:30_000].clone()
    rewrite(folder, lambda ts: {**tables(ts), "embeddings.word_embeddings.weight": rows})
    edit(folder / "config.json", vocab_size=30_000)
    said = r"ids up to 30521, and the embedding table 30000 rows"
    with pytest.raises(ModelError, match=said):
        served(folder, tmp_path)
    with pytest.raises(ModelError, match=said):
        by_torch(folder)
