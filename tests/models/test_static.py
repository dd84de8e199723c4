"""Static models as the library and model2vec write them, from table to artifact."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from sidecar.models.description import Description
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.describe import describe, task_of
from sidecar.models.folder.weights import read_encoder
from sidecar.models.library import Wanted, open_model
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest

from ..later import Later
from ..words import WORDS, with_few_words
from .by_library import TEXTS, differences

pytestmark = pytest.mark.slow

SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")
Dense = Later("sentence_transformers.base.modules", "Dense")
Normalize = Later("sentence_transformers.base.modules", "Normalize")
StaticEmbedding = Later("sentence_transformers.sentence_transformer.modules", "StaticEmbedding")

DIMENSIONS = 48


@pytest.fixture
def static(minilm_folder: Path, tmp_path: Path) -> Path:
    """A folder that the library wrote, with a random table."""
    tokenizer = Tokenizer.from_str(with_few_words(minilm_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    table = np.random.default_rng(5).standard_normal((WORDS, DIMENSIONS)).astype(np.float32)
    first = StaticEmbedding(tokenizer, embedding_weights=table)
    folder = tmp_path / "static"
    SentenceTransformer(modules=[first, Normalize()], device="cpu").save(str(folder))
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_of(folder: Path) -> Path:
    """Return the file with the table, wherever the library has put it."""
    return next(folder.rglob("model.safetensors"))


def test_it_is_described(static: Path) -> None:
    """A static model needs no config.json, and its limit is as high as memory allows."""
    assert task_of(static) == "embed"
    assert describe(static) == Description(
        task="embed",
        family="static",
        pooling=("bag",),  # type: ignore[arg-type]
        normalize=True,
        max_tokens=16_384,
        prompts={"query": "", "document": ""},
        default_prompt_name=None,
        activation="identity",
        similarity_fn_name="cosine",
    )


def test_its_vectors_are_the_librarys(static: Path, tmp_path: Path) -> None:
    """A static model gives the library's vectors; a text without tokens gives zeros."""
    assert TEXTS[0] == ""
    assert differences(static, tmp_path).max() <= 1e-5
    assert not SentenceTransformer(str(static), device="cpu").encode([""]).any()


def test_modules_behind_it_are_the_librarys(static: Path, tmp_path: Path) -> None:
    """A Dense layer after a static model gives the library's vectors, even for zeros."""
    first = SentenceTransformer(str(static), device="cpu")[0]
    folder = tmp_path / "dense"
    modules = [first, Dense(DIMENSIONS, 16), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    assert differences(folder, tmp_path).max() <= 1e-5


def test_model2vecs_layout_is_read(static: Path, tmp_path: Path) -> None:
    """model2vec's layout is read: another table name, rows shared by a mapping, token weights."""
    path = weights_of(static)
    (table,) = load_file(path).values()
    rng = np.random.default_rng(6)
    mapping = rng.integers(0, 900, len(table))
    weights = rng.random(len(table)).astype(np.float32)
    # Its config has a model_type that names no transformer.
    (static / "config.json").write_text('{"model_type": "model2vec", "normalize": true}')
    for tensors in (
        {"embeddings": table},
        {"embeddings": table, "weights": weights},
        {"embeddings": table[:900].copy(), "mapping": mapping},
        {"embeddings": table[:900].copy(), "mapping": mapping, "weights": weights},
    ):
        save_file(tensors, path)
        assert differences(static, tmp_path).max() <= 1e-5, list(tensors)


def test_a_plain_model2vec_folder_is_refused_as_there(static: Path) -> None:
    """A model2vec folder without modules.json is refused, as by sentence-transformers."""
    (static / "config.json").write_text('{"model_type": "model2vec"}')
    (static / "modules.json").unlink()
    with pytest.raises(UnknownArchitectureError, match="family 'model2vec'"):
        describe(static)
    with pytest.raises(ValueError, match="model2vec"):
        SentenceTransformer(str(static), device="cpu")


def test_a_limit_in_the_tokenizer_counts(static: Path, tmp_path: Path) -> None:
    """The limit in tokenizer.json counts, as in the library; truncating on the left is refused."""
    path = next(static.rglob("tokenizer.json"))
    cut = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    edit(path, truncation=cut)
    assert describe(static).max_tokens == 7
    assert differences(static, tmp_path).max() <= 1e-5
    edit(path, truncation={**cut, "max_length": 10**6})
    assert describe(static).max_tokens == 16_384
    edit(path, truncation={**cut, "direction": "Left"})
    with pytest.raises(UnknownArchitectureError, match="must truncate on the right"):
        describe(static)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": np.ones((4, 4), np.float32)}, "neither a tensor"),
        ({"embeddings": np.ones(4, np.float32)}, "has 1 axes, not 2"),
        (
            {"embeddings": np.ones((4, 4), np.float32), "weights": np.ones(3, np.float32)},
            "3 token weights for 4 tokens",
        ),
        ({"embeddings": np.ones((4, 4), np.float32), "mapping": np.array([4])}, "the mapping"),
        ({"embeddings": np.ones((4, 4), np.float32), "mapping": np.array([-1])}, "the mapping"),
        ({"embeddings": np.full((4, 4), np.nan, np.float32)}, "'embeddings' holds NaN"),
    ],
)
def test_tables_that_make_no_sense_are_named(
    static: Path, tensors: dict[str, np.ndarray], message: str
) -> None:
    """A table that makes no sense is refused in one line that says what is wrong."""
    save_file(tensors, weights_of(static))
    with pytest.raises(ModelError, match=message):
        read_encoder(static, describe(static))


@pytest.mark.parametrize(("quantization", "least"), [("int8", 0.9999), ("int4", 0.98)])
def test_it_is_prepared_in_fewer_bits(
    static: Path, tmp_path: Path, quantization: str, least: float
) -> None:
    """A quantized static model passes the gate, is smaller, and gives the same bytes every time."""
    precision = Precision(quantization, weight_bits=8, floor=least)
    output = tmp_path / quantization
    made = prepare(PrepareRequest(folder=static, name="tiny", precision=precision, output=output))
    assert (made.quantization, made.kept, made.dimensions) == (quantization, (), DIMENSIONS)
    assert made.kernel == f"onnxruntime Gather, {quantization} rows"
    assert made.quality is not None
    assert made.quality.min >= least
    assert made.bytes_weights <= (0.30 if quantization == "int8" else 0.18) * made.bytes_fp32
    model = load(output)
    rows = model.tokenize(TEXTS)
    assert [row.tokens for row in rows][:2] == [0, 2]
    vectors = [model.forward(row).tobytes() for row in rows]
    assert [model.forward(row).tobytes() for row in reversed(rows)] == vectors[::-1]
    assert not model.forward(rows[0]).any()


def test_a_text_of_no_tokens_may_be_asked_for(static: Path, tmp_path: Path) -> None:
    """A static model has a vector for it, so requests for it are not refused."""
    precision = Precision("none", weight_bits=8, floor=0.9)
    prepare(PrepareRequest(folder=static, name="t", precision=precision, output=tmp_path / "out"))
    assert load(tmp_path / "out").least_tokens == 0


def test_an_odd_width_has_no_four_bits(static: Path, tmp_path: Path) -> None:
    """A table of odd width is stored in 8 bits, since 4-bit values share bytes in pairs."""
    path = weights_of(static)
    (table,) = load_file(path).values()
    save_file({"embedding.weight": table[:, :47].copy()}, path)
    precision = Precision("int4", weight_bits=8, floor=0.98)
    made = prepare(
        PrepareRequest(folder=static, name="t", precision=precision, output=tmp_path / "out")
    )
    assert made.quality is not None
    assert made.quality.min >= 0.9999


def test_longer_texts_say_that_they_were_cut(static: Path, tmp_path: Path) -> None:
    """A text over a static model's limit is truncated and reported as such."""
    precision = Precision("none", weight_bits=8, floor=0.9)
    prepare(PrepareRequest(folder=static, name="t", precision=precision, output=tmp_path / "out"))
    short, long = load(tmp_path / "out").tokenize(["word " * 16_384, "word " * 16_385])
    assert (short.tokens, short.truncated) == (16_384, False)
    assert (long.tokens, long.truncated) == (16_384, True)


def test_a_gpu_s_daemon_serves_it_on_the_cpu(static: Path, tmp_path: Path) -> None:
    """On a host with a GPU, a static model is served in FP32 on the CPU, not refused."""
    precision = Precision("fp16", weight_bits=7, floor=0.9)
    wanted = Wanted(
        name=str(static), task="embed", precision=precision, reason="a test", device="cuda"
    )
    model = open_model(wanted, tmp_path / "cache")
    status = model.describe()
    assert (status["device"], status["quantization"]) == ("cpu", "none")
    assert model.forward(model.tokenize([""])[0]).tolist() == [0.0] * DIMENSIONS
