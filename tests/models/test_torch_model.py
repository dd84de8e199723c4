"""Models that sentence-transformers computes: those of unknown families, and on CUDA."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from sidecar.models import torch_model, torch_pipeline
from sidecar.models.closeness import cosines
from sidecar.models.errors import ModelError
from sidecar.models.library import Wanted, open_model
from sidecar.models.precision import Precision
from sidecar.models.prompting import prompts_of
from sidecar.models.torch_model import TorchModel, load
from sidecar.models.torch_pipeline import Source

from ..later import Later

torch = Later("torch")
CrossEncoder = Later("sentence_transformers", "CrossEncoder")
SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")
Dense = Later("sentence_transformers.base.modules", "Dense")
Normalize = Later("sentence_transformers.sentence_transformer.modules", "Normalize")

MakeModel = Callable[..., Path]
TEXTS = ["a short text", "another one, somewhat longer than the first", "word " * 300]
PAIRS = [("a query", text) for text in TEXTS]


@pytest.fixture(scope="module")
def folder(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with a Dense layer after the pooling, whose activation no graph here computes."""
    plain = SentenceTransformer(str(make_model()), device="cpu")
    transformer, pooling, normalize = list(plain.children())
    dense = Dense(64, 32, activation_function=torch.nn.Hardtanh())
    modules = [transformer, pooling, dense, normalize]
    path = tmp_path_factory.mktemp("dense")
    SentenceTransformer(modules=modules, device="cpu").save(str(path))
    return path


@pytest.fixture(scope="module")
def reranker(make_model: MakeModel) -> Path:
    """A cross-encoder of a family that no graph here computes."""
    return make_model("albert", classifier=True)


def wanted(folder: Path, task: str = "embed") -> Wanted:
    precision = Precision("int8", weight_bits=7, floor=0.9)
    return Wanted(name=str(folder), task=task, precision=precision, reason="a test")  # type: ignore[arg-type]


def source(folder: Path, task: str = "embed") -> Source:
    prompts = prompts_of(folder, folder.name, task, {})  # type: ignore[arg-type]
    return Source(folder, folder.name, task, prompts=prompts)  # type: ignore[arg-type]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def embedded(model: TorchModel, texts: list[str]) -> np.ndarray:
    """Return the vectors of `texts`, normalised to length 1."""
    vectors = np.stack([model.forward(row) for row in model.tokenize(texts)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scored(model: TorchModel, pairs: list[tuple[str, str]]) -> np.ndarray:
    return np.array([model.forward(row)[0] for row in model.tokenize(pairs)])


def test_vectors_are_sentence_transformers_own(folder: Path, tmp_path: Path) -> None:
    """The vectors served are those that the library computes, whatever its modules."""
    model = open_model(wanted(folder), tmp_path)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(embedded(model, TEXTS), expected, atol=1e-5)


def test_scores_are_sentence_transformers_own(reranker: Path, tmp_path: Path) -> None:
    """A reranker of an unknown family gives the library's scores, with its default activation."""
    model = open_model(wanted(reranker, "rerank"), tmp_path)
    assert (model.task, model.dimensions, model.prompts) == ("rerank", 1, {})
    assert model.describe()["activation"] == "sigmoid"
    expected = CrossEncoder(str(reranker), device="cpu").predict(PAIRS, batch_size=1)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scored(model, PAIRS), expected, atol=1e-5)


def test_activation_is_the_folders(make_model: MakeModel, tmp_path: Path) -> None:
    """A score activation of torch's that no graph here computes leads to the slow path."""
    path = make_model(classifier=True)
    edit(path / "config.json", sentence_transformers={"activation_fn": "torch.nn.Tanh"})
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(path, "rerank"), tmp_path)
    assert "Tanh" in next(e["reason"] for e in events if e["event"] == "model.slow_path")
    expected = CrossEncoder(str(path), device="cpu").predict(PAIRS, batch_size=1)
    assert expected.min() < 0
    np.testing.assert_allclose(scored(model, PAIRS), expected, atol=1e-5)


def test_it_says_that_it_is_the_slow_path(folder: Path, tmp_path: Path) -> None:
    """An event names the slow model and the reason, and nothing is reported as quantized."""
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(folder), tmp_path)
    (slow,) = [event for event in events if event["event"] == "model.slow_path"]
    assert "Dense" in slow["reason"]
    status = model.describe()
    assert (status["quantization"], status["activation"]) == ("none", None)
    assert status["normalize"] == model.normalize
    assert status["prompts"] == {"query": "", "document": ""}
    assert status["similarity_fn_name"] == "cosine"
    assert model.dimensions == 32
    assert model.verified is not None
    assert status["verified"]["outputs"] == model.verified.outputs > 5
    (loaded,) = [event for event in events if event["event"] == "model.loaded"]
    assert loaded["bytes"] > 0
    assert "quantization.applied" not in [event["event"] for event in events]


def test_long_text_is_reported_as_cut(folder: Path, reranker: Path) -> None:
    """A text over the model's limit is truncated and reported; one that just fits is not."""
    model = load(source(folder))
    rows = model.tokenize([*TEXTS, "word " * (model.max_tokens - 2)])
    assert [row.truncated for row in rows] == [False, False, True, False]
    assert rows[2].tokens == rows[3].tokens == model.max_tokens
    preprocess = model._preprocess
    # If the tokenizer does not report truncation, a row at the limit counts as truncated.
    model._preprocess = lambda *texts, **options: dict(preprocess(*texts, **options))
    rows = model.tokenize([*TEXTS, "word " * (model.max_tokens - 3)])
    assert [row.truncated for row in rows] == [False, False, True, False]
    pairs = load(source(reranker, "rerank")).tokenize(PAIRS)
    assert [row.truncated for row in pairs] == [False, False, True]


def test_one_text_is_tokenized_at_a_time(folder: Path) -> None:
    """One text is tokenized at a time, since the library's tokenizer is not thread-safe."""
    model = load(source(folder))
    inside, free = threading.Lock(), []
    preprocess = model._preprocess

    def watched(texts: list[str], **options: Any) -> Any:
        free.append(inside.acquire(blocking=False))
        try:
            return preprocess(texts, **options)
        finally:
            if free[-1]:
                inside.release()

    model._preprocess = watched
    expected = [row.digest for row in model.tokenize(TEXTS)]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(model.tokenize, [TEXTS] * 40))
    assert all(free)
    assert all([row.digest for row in some] == expected for some in rows)


def test_a_setting_caps_the_length(folder: Path, tmp_path: Path) -> None:
    """A configured cap truncates texts and reports it, as on our own graph."""
    model = load(replace(source(folder), max_tokens=8))
    row = model.tokenize([TEXTS[2]])[0]
    assert (row.tokens, row.truncated) == (8, True)
    status = model.describe()
    assert status["max_tokens"] == 8
    assert status["model_max_tokens"] == load(source(folder)).max_tokens
    opened = open_model(replace(wanted(folder), max_tokens=9), tmp_path)
    assert opened.max_tokens == opened.tokenize([TEXTS[2]])[0].tokens == 9


def test_length_ends_where_positions_do(make_model: MakeModel) -> None:
    """RoBERTa's limit is two tokens below its table of positions, which starts with padding."""
    model = load(source(make_model("roberta")))
    assert model.max_tokens == 96
    assert model.forward(model.tokenize(TEXTS)[2]).shape == (64,)


def test_a_model_without_a_limit_gets_one(make_model: MakeModel) -> None:
    """A model whose folder states no limit is given one."""
    path = make_model(max_position_embeddings=1024)
    edit(path / "tokenizer_config.json", model_max_length=10**30)
    config = json.loads((path / "config.json").read_text())
    assert load(source(path)).max_tokens == config["max_position_embeddings"]
    pipeline = SentenceTransformer(str(path), device="cpu")
    pipeline.max_seq_length = 10**30
    assert torch_pipeline._max_tokens(pipeline) == 512


def test_only_the_last_normalisation_is_the_requests(folder: Path, tmp_path: Path) -> None:
    """Only a final normalisation is left to the request; one between modules is the model's."""
    plain = SentenceTransformer(str(folder), device="cpu")
    transformer, pooling, dense, _ = list(plain.children())
    modules = [transformer, pooling, Normalize(), dense]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    model = load(source(tmp_path))
    assert not model.normalize
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, batch_size=1)
    ours = np.stack([model.forward(row) for row in model.tokenize(TEXTS)])
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_half_precision_checkpoint_is_served_in_fp32(make_model: MakeModel) -> None:
    """A half-precision checkpoint is served in FP32 if FP32 is requested."""
    path = make_model()
    SentenceTransformer(str(path), device="cpu").half().save(str(path))
    model = load(source(path))
    assert model.describe()["quantization"] == "none"
    assert {p.dtype for module in model._modules for p in module.parameters()} == {torch.float32}


def test_without_the_library_the_error_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sentence-transformers, the error names the extra to install."""
    monkeypatch.setattr(torch_model.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"Dense.*extra `server`"):
        open_model(wanted(folder), tmp_path)


def test_what_the_library_cannot_load_is_an_error(make_model: MakeModel, tmp_path: Path) -> None:
    """A folder that neither side can read is refused with both reasons, in one line."""
    folder = make_model("albert")
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match=r"albert.*cannot load") as caught:
        open_model(wanted(folder), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_for_another_task_is_refused(folder: Path, reranker: Path, tmp_path: Path) -> None:
    """A model for the other task is refused: the library would give it a random head."""
    with pytest.raises(ModelError, match="is a model to embed, not to rerank"):
        open_model(wanted(folder, "rerank"), tmp_path)
    with pytest.raises(ModelError, match="is a model to rerank, not to embed"):
        open_model(wanted(reranker), tmp_path)


def test_what_would_come_out_differently_is_refused(make_model: MakeModel) -> None:
    """Pooling without the prompt, several labels and custom activations are refused."""
    prompted = make_model()
    edit(prompted / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(ModelError, match="leaves out the prompt"):
        load(source(prompted))
    with pytest.raises(ModelError, match="3 labels"):
        load(source(make_model("albert", classifier=True, num_labels=3), "rerank"))
    own = make_model("albert", classifier=True)
    edit(own / "config.json", sentence_transformers={"activation_fn": "my.Code"})
    with pytest.raises(ModelError, match=r"'my\.Code' is not one of torch's"):
        load(source(own, "rerank"))


def test_other_mathematics_take_the_slow_path(make_model: MakeModel, tmp_path: Path) -> None:
    """A BERT with an unsupported activation is served by the slow path."""
    folder = make_model(hidden_act="tanh")
    model = open_model(wanted(folder), tmp_path)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(embedded(model, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize(("dtype", "closeness"), [("float16", 0.9999), ("bfloat16", 0.995)])
def test_half_precision_is_close(
    make_model: MakeModel, device: str, dtype: str, closeness: float
) -> None:
    """An embedder and a reranker in half precision are as close to FP32 as the bits allow."""
    path = make_model()
    exact = embedded(load(source(path), device="cpu"), TEXTS)
    half = load(source(path), device=device, dtype=dtype)
    assert half.weight_bytes == load(source(path)).weight_bytes // 2
    assert cosines(exact, embedded(half, TEXTS)).min() > closeness
    path = make_model(classifier=True)
    exact = scored(load(source(path, "rerank")), PAIRS)
    approximate = scored(load(source(path, "rerank"), device=device, dtype=dtype), PAIRS)
    assert np.abs(exact - approximate).max() < 10 * (1 - closeness)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_same_text_gives_the_same_bytes(make_model: MakeModel, device: str, dtype: str) -> None:
    """A text gives the same bytes alone, among others, and from many threads at once."""
    model = load(source(make_model()), device=device, dtype=dtype)
    alone = [model.forward(model.tokenize([text])[0]).tobytes() for text in TEXTS]
    rows = model.tokenize(TEXTS * 8)
    assert [model.forward(row).tobytes() for row in rows] == alone * 8
    with ThreadPoolExecutor(4) as threads:
        assert [vector.tobytes() for vector in threads.map(model.forward, rows)] == alone * 8


def test_a_folder_with_a_vocabulary_alone_is_no_reason_for_the_slow_path(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """Without a tokenizer.json, our graph uses the tokenizer in vocab.txt, as the library does."""
    path = make_model()
    tokens = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    (path / "vocab.txt").write_text("\n".join(sorted(tokens, key=tokens.get)))
    (path / "tokenizer.json").unlink()
    with structlog.testing.capture_logs() as events:
        model = open_model(wanted(path), tmp_path)
    assert "model.slow_path" not in [event["event"] for event in events]
    expected = SentenceTransformer(str(path), device="cpu").encode(TEXTS, batch_size=1)
    assert cosines(embedded(model, TEXTS), expected).min() > 0.999  # in int8


def test_a_pair_takes_the_rerankers_own_prompt(make_model: MakeModel, tmp_path: Path) -> None:
    """Pairs get a reranker's default prompt, as in the library, and no other."""
    path = make_model("albert", classifier=True)
    only = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (path / "modules.json").write_text(json.dumps([only]))
    task = {"transformer_task": "sequence-classification"}
    (path / "sentence_bert_config.json").write_text(json.dumps(task))
    own = {"model_type": "CrossEncoder", "prompts": {"rank": "judge whether it answers: "}}
    scores = []
    for default in ("rank", None):
        stated = own | {"default_prompt_name": default}
        (path / "config_sentence_transformers.json").write_text(json.dumps(stated))
        expected = CrossEncoder(str(path), device="cpu").predict(PAIRS, batch_size=1)
        model = open_model(wanted(path, "rerank"), tmp_path)
        assert model.prompts == {}
        scores.append(scored(model, PAIRS))
        np.testing.assert_allclose(scores[-1], expected, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
