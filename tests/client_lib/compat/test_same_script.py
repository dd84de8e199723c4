"""The same calls to sentence-transformers in process and to compat over a daemon."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .conftest import Side

pytestmark = pytest.mark.slow

TEXTS = [
    "a cat sleeps",
    "the stock market fell",
    "ein Hund schläft",
    "猫が眠る",
    "",
    "long. " * 400,
]
PAIRS = [("a cat", "a cat sleeps"), ("a cat", "snow"), ("tax", "a cat"), ["tax", "long. " * 400]]
_A, _B = np.random.default_rng(3).normal(size=(2, 4, 8)).astype(np.float32)

Script = Callable[[Any], Any]


def tensor(array: Any) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


ENCODE: dict[str, Script] = {
    "texts": lambda m: m.encode(TEXTS),
    "one string": lambda m: m.encode(TEXTS[0]),
    "the older name": lambda m: m.encode(sentences=TEXTS),
    "a tuple": lambda m: m.encode(tuple(TEXTS)),
    "an array of strings": lambda m: m.encode(np.array(TEXTS)),
    "nothing": lambda m: m.encode([]),
    "nothing, as a tensor": lambda m: m.encode([], convert_to_tensor=True),
    "nothing, as a list": lambda m: m.encode([], convert_to_numpy=False),
    "a tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True),
    "one tensor": lambda m: m.encode(TEXTS[0], convert_to_tensor=True),
    "a list of tensors": lambda m: m.encode(TEXTS, convert_to_numpy=False),
    "normalized": lambda m: m.encode(TEXTS, normalize_embeddings=True),
    "truncated": lambda m: m.encode(TEXTS, truncate_dim=16),
    "truncated, normalized": lambda m: m.encode(TEXTS, truncate_dim=16, normalize_embeddings=True),
    "truncated beyond its end": lambda m: m.encode(TEXTS, truncate_dim=1000),
    "a prompt": lambda m: m.encode(TEXTS, prompt="query: "),
    "a prompt's name": lambda m: m.encode(TEXTS, prompt_name="query"),
    "positions": lambda m: m.encode(TEXTS, None, "query: ", 2, False),
    "a query": lambda m: m.encode_query("a cat"),
    "documents": lambda m: m.encode_document(TEXTS, batch_size=2, convert_to_tensor=True),
    "no prompt": lambda m: m.encode(TEXTS, prompt=""),
    "bits": lambda m: m.encode(TEXTS, precision="binary"),
    "bits of a tensor": lambda m: m.encode(TEXTS, precision="ubinary", convert_to_tensor=True),
    "bits of few dimensions": lambda m: m.encode(TEXTS, precision="ubinary", truncate_dim=20),
}  # fmt: skip

SIMILARITY: dict[str, Script] = {
    "matrix": lambda m: m.similarity(_A, _B[:3]),
    "one vector": lambda m: m.similarity(_A[0], _B),
    "lists": lambda m: m.similarity(list(_A), list(_B)),
    "tensors": lambda m: m.similarity(tensor(_A), tensor(_B)),
    "a list of tensors": lambda m: m.similarity(list(tensor(_A)), list(tensor(_B))),
    "tensors, pairwise": lambda m: m.similarity_pairwise(tensor(_A), tensor(_B)),
    "pairwise": lambda m: m.similarity_pairwise(_A, _B),
    "one pair": lambda m: m.similarity_pairwise(_A[0], _B[0]),
    "half": lambda m: m.similarity(_A.astype(np.float16), _B.astype(np.float16)),
    "double": lambda m: m.similarity(_A.astype(np.float64), _B.astype(np.float64)),
    "zeros": lambda m: m.similarity(np.zeros((1, 8), np.float32), _B),
}

PREDICT: dict[str, Script] = {
    "pairs": lambda m: m.predict(PAIRS),
    "one pair": lambda m: m.predict(("a cat", "a cat sleeps")),
    "one pair as a list": lambda m: m.predict(["a cat", "a cat sleeps"]),
    "the older name": lambda m: m.predict(sentences=PAIRS),
    "an array": lambda m: m.predict(np.array(PAIRS)),
    "an array of one pair": lambda m: m.predict(np.array(PAIRS[0])),
    "nothing": lambda m: m.predict([]),
    "nothing, as a tensor": lambda m: m.predict([], convert_to_tensor=True),
    "a tensor": lambda m: m.predict(PAIRS, convert_to_tensor=True),
    "a list of tensors": lambda m: m.predict(PAIRS, convert_to_numpy=False),
    "softmax of one label": lambda m: m.predict(PAIRS, apply_softmax=True),
    "positions": lambda m: m.predict(PAIRS, None, None, 2, False),
    "rank": lambda m: m.rank("a cat", TEXTS),
    "rank, the best with their texts": lambda m: m.rank("a cat", TEXTS, 2, True),
    "rank nothing": lambda m: m.rank("a cat", []),
}


def cases(scripts: dict[str, Script]) -> Any:
    return pytest.mark.parametrize("script", scripts.values(), ids=scripts.keys())


def same(mine: Any, theirs: Any) -> None:
    """Assert equal types, shapes and dtypes, and values within FP32 rounding."""
    assert type(mine) is type(theirs)
    if isinstance(theirs, list | tuple):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        same(list(mine.values()), list(theirs.values()))
    elif hasattr(theirs, "dtype"):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        if hasattr(theirs, "device"):
            assert mine.device == theirs.device
        as_array = [np.asarray(value) for value in (mine, theirs)]
        if theirs.dtype.itemsize == 1:  # a value close to 0 may round to either sign
            bits = [np.unpackbits(array.view(np.uint8)) for array in as_array]
            assert np.mean(bits[0] != bits[1]) < 0.002
        else:
            np.testing.assert_allclose(*as_array, atol=3e-5)
    elif isinstance(theirs, float):
        assert mine == pytest.approx(theirs, abs=3e-5)
    else:
        assert mine == theirs


@cases(ENCODE)
def test_encode(here: Side, there: Side, script: Script) -> None:
    """`encode` returns the library's types, shapes, dtypes, order and values."""
    same(script(there.embedder), script(here.embedder))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@cases(SIMILARITY)
def test_similarity(here: Side, there: Side, name: Any, script: Script) -> None:
    """Similarities equal the library's for every function."""
    stated = here.embedder.similarity_fn_name
    for side in (here, there):
        side.embedder.similarity_fn_name = name
    try:
        same(script(there.embedder), script(here.embedder))
    finally:
        for side in (here, there):
            side.embedder.similarity_fn_name = stated


@cases(PREDICT)
def test_predict_and_rank(here: Side, there: Side, script: Script) -> None:
    """`predict` and `rank` return what the library returns."""
    same(script(there.reranker), script(here.reranker))


def test_activations(here: Side, there: Side) -> None:
    """The model's own activation may be named; another is applied only to logits."""
    torch = pytest.importorskip("torch")
    own = type(here.reranker.activation_fn)()
    same(
        there.reranker.predict(PAIRS, activation_fn=own),
        here.reranker.predict(PAIRS, activation_fn=own),
    )
    if isinstance(own, torch.nn.Sigmoid):
        with pytest.raises(ValueError, match="activation_fn=Tanh"):
            there.reranker.predict(PAIRS, activation_fn=torch.nn.Tanh())
    else:
        for other in (torch.nn.Sigmoid(), torch.tanh):
            same(
                there.reranker.rank("a cat", TEXTS, activation_fn=other),
                here.reranker.rank("a cat", TEXTS, activation_fn=other),
            )


def test_what_the_models_are(here: Side, there: Side) -> None:
    """Token limit, prompts, similarity, dimensions and labels equal the library's."""
    for name in ("max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name"):
        assert getattr(there.embedder, name) == getattr(here.embedder, name)
    assert there.embedder.get_embedding_dimension() == here.embedder.get_embedding_dimension()
    assert there.embedder.get_sentence_embedding_dimension() == 64
    assert there.reranker.max_seq_length == here.reranker.max_seq_length
    assert there.reranker.num_labels == here.reranker.num_labels


def test_truncation_may_be_set_for_a_while(here: Side, there: Side) -> None:
    """`truncate_embeddings` applies inside its block, also to the reported dimension."""
    for side in (here, there):
        with side.embedder.truncate_embeddings(8):
            assert side.embedder.encode("a").shape == (8,)
            assert side.embedder.get_embedding_dimension() == 8
        assert side.embedder.encode("a").shape == (64,)


def test_many_pairs_of_many_queries_keep_their_order(here: Side, there: Side) -> None:
    """Pairs of many queries, sent as many requests, keep their order."""
    pairs = [(f"query {i // 90}", f"document {i % 7} of {i}") for i in range(200)]
    pairs += [(f"query {i % 3}", "a document") for i in range(40)]
    same(there.reranker.predict(pairs), here.reranker.predict(pairs))


def test_a_bar_moves_where_it_is_asked_for(
    there: Side, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A progress bar is shown on request or, by default, at the log level INFO."""
    there.embedder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    there.embedder.encode(["a"] * 600, show_progress_bar=True)
    assert "Batches: 100%" in (text := capsys.readouterr().err)
    assert "3/3" in text
    there.reranker.predict(PAIRS, show_progress_bar=True)
    assert "2/2" in capsys.readouterr().err
    with caplog.at_level("INFO", logger="client_lib.compat.progress"):
        there.embedder.encode(TEXTS)
        assert "Batches" in capsys.readouterr().err
        there.embedder.encode(TEXTS, show_progress_bar=False)
        assert capsys.readouterr().err == ""
