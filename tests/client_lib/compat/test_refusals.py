"""What a daemon cannot do is refused by name, and its status is taken at its word."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import BadRequest, ConnectionLost, UnknownModel
from client_lib.compat import CrossEncoder, SentenceTransformer
from client_lib.compat.served import means
from client_lib.wire.messages import Embed, Request, Rerank, Status

from ..fake_daemon import DIMENSIONS, FakeDaemon, answer

EMBEDDER = {
    "name": "org/small", "task": "embed", "dimensions": DIMENSIONS, "max_tokens": 96,
    "normalize": True, "prompts": {"query": "", "document": ""}, "default_prompt_name": None,
    "similarity_fn_name": None, "activation": None,
}  # fmt: skip
RERANKER = {
    **EMBEDDER, "name": "judge", "task": "rerank", "dimensions": 1, "activation": "sigmoid",
}  # fmt: skip


def script(models: Sequence[Mapping[str, Any]]) -> Callable[[Request], Any]:
    def reply(request: Request) -> Any:
        if isinstance(request, Status):
            return {"status": {"models": models}}
        model = {"model": None} if hasattr(request, "model") else {}
        body = answer(
            type(request)(**{name: getattr(request, name) for name in request.__slots__} | model)
        )
        return {**body, "method": "cross_encoder"} if isinstance(request, Rerank) else body

    return reply


@pytest.fixture
def served(fake: FakeDaemon) -> Callable[..., Path]:
    """Make the daemon report its two models with `changes`; return its socket."""

    def set_up(**changes: Any) -> Path:
        fake.script = script([{**EMBEDDER, **changes}, {**RERANKER, **changes}])
        return fake.socket

    return set_up


@pytest.fixture
def embedder(served: Callable[..., Path]) -> Iterator[SentenceTransformer]:
    with SentenceTransformer(socket=served()) as embedder:
        yield embedder


@pytest.fixture
def reranker(served: Callable[..., Path]) -> Iterator[CrossEncoder]:
    with CrossEncoder(socket=served()) as reranker:
        yield reranker


@pytest.mark.parametrize(
    ("asked", "name", "same"),
    [
        ("org/small", "org/small", True),
        ("small", "org/small", True),
        ("org/small", "small", True),
        ("/models/small", "small", True),
        ("/models/small/", "org/small", True),
        ("./small", "small", True),
        ("other/small", "org/small", False),
        ("small-v2", "small", False),
        ("/models/large", "small", False),
    ],
)
def test_which_names_mean_the_same_model(asked: str, name: str, same: bool) -> None:
    """Hub ids match with or without their organisation, folders by their last component."""
    assert means(asked, name) is same


def test_another_model_is_refused_with_those_that_are_served(served: Callable[..., Path]) -> None:
    """An unserved model is refused with the served ones and the flag to serve it."""
    message = "serves org/small as embedding model, not large: .* --embedding-model large"
    with pytest.raises(UnknownModel, match=message):
        SentenceTransformer("large", socket=served())
    with pytest.raises(UnknownModel, match="serves judge as reranker, not org/small"):
        CrossEncoder("org/small", socket=served())


def test_a_daemon_without_a_reranker_says_so(fake: FakeDaemon) -> None:
    """A daemon without a reranker refuses `CrossEncoder`, even if it has an embedding model."""
    fake.script = script([EMBEDDER])
    with pytest.raises(UnknownModel, match="no reranker: start it with --reranker-model judge"):
        CrossEncoder("judge", socket=fake.socket)


@pytest.mark.timeout(20)  # less than a client's default timeout of 30 s
def test_without_a_daemon_nothing_is_made(tmp_path: Path) -> None:
    """Without a daemon the constructor raises after `timeout`, naming the socket."""
    with pytest.raises(ConnectionLost, match="none"):
        SentenceTransformer("small", socket=tmp_path / "none", timeout=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"modules": []},
        {"revision": "main"},
        {"model_kwargs": {"torch_dtype": "float16"}},
        {"tokenizer_kwargs": {"max_length": 8}},
        {"unheard_of": 1},
    ],
)
def test_options_that_only_a_daemon_can_follow_are_refused(
    served: Callable[..., Path], options: dict[str, Any]
) -> None:
    """Both classes refuse options that only a daemon could honour, by name."""
    for kind in (SentenceTransformer, CrossEncoder):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.*runs in the daemon"):
            kind(socket=served(), **options)


def test_options_that_change_no_result_are_ignored(served: Callable[..., Path]) -> None:
    """Options that do not change the result, or are None, are ignored."""
    options = {
        "backend": "onnx", "cache_folder": "/tmp", "device": "cuda", "local_files_only": True,
        "model_card_data": {}, "revision": None, "token": "x", "trust_remote_code": True,
        "use_auth_token": "x",
    }  # fmt: skip
    texts, pairs = ["a cat", "snow"], [("a cat", "a cat sleeps"), ("a cat", "snow")]
    with (
        SentenceTransformer(socket=served()) as plain,
        SentenceTransformer(socket=served(), **options) as embedder,
        CrossEncoder(socket=served()) as judge,
        CrossEncoder(socket=served(), **options) as reranker,
    ):
        ignored = {"batch_size": 1, "chunk_size": 1}
        assert np.array_equal(
            embedder.encode(texts, task="retrieval", **ignored), plain.encode(texts)
        )
        assert np.array_equal(
            reranker.predict(pairs, apply_softmax=True, **ignored), judge.predict(pairs)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_value": "token_embeddings"}, "only returns pooled vectors"),
        ({"output_value": None}, "only returns pooled vectors"),
        ({"pool": {"processes": []}}, "pool="),
        ({"processing_kwargs": {"text": {}}}, "processing_kwargs="),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"prompt_name": "title"}, r"'title' is not one of \['query', 'document'\]"),
    ],
)
def test_what_encode_cannot_do(
    embedder: SentenceTransformer, options: dict[str, Any], message: str
) -> None:
    """`encode` refuses token output, pools, processing options and unknown prompt names."""
    with pytest.raises(ValueError, match=message):
        embedder.encode("a", **options)


@pytest.mark.parametrize("inputs", [["a", {"image": 1}], ["a", ("q", "d")], ["a", None]])
def test_what_is_no_text_is_named_by_its_index(embedder: SentenceTransformer, inputs: Any) -> None:
    """An input that is not a text is named by its index, and missing inputs are refused."""
    with pytest.raises(TypeError, match=r"inputs\[1\] must be a string"):
        embedder.encode(inputs)
    with pytest.raises(TypeError, match="needs texts"):
        embedder.encode()


@pytest.mark.parametrize("inputs", [{"text": "a"}, {"a"}, b"a", 7])
def test_what_is_no_list_of_texts_is_named(embedder: SentenceTransformer, inputs: Any) -> None:
    """A collection or value that is not a list of texts is refused by its type."""
    with pytest.raises(TypeError, match=f"inputs must be a list .*, not {type(inputs).__name__}"):
        embedder.encode(inputs)


def test_half_a_character_is_named_by_its_index(
    embedder: SentenceTransformer, reranker: CrossEncoder
) -> None:
    """A lone surrogate is named by its index among all inputs, across requests."""
    with pytest.raises(BadRequest, match=r"inputs\[1\] holds half a character") as refused:
        embedder.encode(["a", "\ud800"])
    assert refused.value.index == 1
    pairs = [("q", "a")] * 100 + [("q", "\ud800")]
    with pytest.raises(BadRequest, match=r"inputs\[100\] holds half a character") as refused:
        reranker.predict(pairs)
    assert refused.value.index == 100


def test_a_refused_pair_is_named_by_its_index(reranker: CrossEncoder, fake: FakeDaemon) -> None:
    """A pair that the daemon refuses is named by its index among all pairs."""
    before = fake.script

    def refuse(request: Request) -> Any:
        if isinstance(request, Rerank) and request.query == "second":
            raise BadRequest("no", index=1)
        return before(request)

    fake.script = refuse
    with pytest.raises(BadRequest) as refused:
        reranker.predict([("first", "a")] * 3 + [("second", "b")] * 2)
    assert refused.value.index == 4


def test_numbers_of_numpy_are_numbers(
    embedder: SentenceTransformer, reranker: CrossEncoder, fake: FakeDaemon
) -> None:
    """NumPy numbers are accepted as in the library, but a bool is not a number of dimensions."""
    embedder.encode(["a"], truncate_dim=np.int64(3), normalize_embeddings=np.bool_(True))
    (request,) = fake.wait_for(Embed)
    assert (request.dimensions, request.normalize) == (3, True)
    assert embedder.encode(["a"], truncate_dim=np.int64(3)).shape == (1, 3)
    assert len(reranker.rank("a", ["a", "b"], top_k=np.int64(1))) == 1
    for flag in (True, np.True_):
        with pytest.raises(TypeError, match="truncate_dim must be a whole number above 0"):
            embedder.encode(["a"], truncate_dim=flag)


@pytest.mark.parametrize("timeout", [None, float("inf")])
def test_there_may_be_no_limit_of_time(served: Callable[..., Path], timeout: float | None) -> None:
    """A timeout of None or infinity means no limit, and NaN is refused."""
    for kind in (SentenceTransformer, CrossEncoder):
        kind(socket=served(), timeout=timeout).close()
        with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
            kind(socket=served(), timeout=float("nan"))


def test_integers_of_vectors_that_have_no_length_1(served: Callable[..., Path]) -> None:
    """int8 needs normalised vectors, and the error names the argument; unknown precisions fail."""
    with SentenceTransformer(socket=served(normalize=False)) as embedder:
        with pytest.raises(ValueError, match="pass normalize_embeddings=True"):
            embedder.encode("a", precision="int8")
        assert embedder.encode("a", precision="int8", normalize_embeddings=True).dtype == np.int8
        with pytest.raises(BadRequest, match="one of float32"):
            embedder.encode("a", precision="int4")  # type: ignore[arg-type]


def test_lengths_are_the_daemons(embedder: SentenceTransformer, reranker: CrossEncoder) -> None:
    """Setting `max_seq_length` to anything but the daemon's value is refused."""
    for model in (embedder, reranker):
        model.max_seq_length = model.get_max_seq_length()
        with pytest.raises(ValueError, match="max_seq_length=8: the daemon truncates texts at 96"):
            model.max_seq_length = 8


def test_length_and_labels_of_a_reranker(served: Callable[..., Path]) -> None:
    """A reranker's `max_length` and `num_labels` must match the daemon's."""
    CrossEncoder("judge", num_labels=1, max_length=96, socket=served()).close()
    with pytest.raises(ValueError, match="max_length=8"):
        CrossEncoder("judge", max_length=8, socket=served())
    for labels in (0, 2, 3):
        with pytest.raises(ValueError, match=f"num_labels={labels}: .* one label"):
            CrossEncoder("judge", num_labels=labels, socket=served())


def test_what_only_a_local_model_has(embedder: SentenceTransformer, reranker: CrossEncoder) -> None:
    """An attribute that only a local model has raises an `AttributeError` that says so."""
    for model in (embedder, reranker):
        assert not hasattr(model, "tokenizer")
        with pytest.raises(AttributeError, match="has no 'fit': the model runs in the daemon"):
            model.fit()


@pytest.mark.parametrize(
    "inputs",
    [
        None, "a", [("a",)], [("a", "b", "c")], [("a", 1)], {"a": "b"}, b"ab", 7,
        [("a", "b"), "cd"], [{"a", "b"}], [{"a": 1, "b": 2}],
    ],
)  # fmt: skip
def test_what_is_no_pair(reranker: CrossEncoder, inputs: Any) -> None:
    """Inputs that are not pairs of texts raise a `TypeError` that names the expected form."""
    with pytest.raises(TypeError, match=r"\(query, document\)"):
        reranker.predict(inputs)


def test_a_prompt_for_pairs_is_refused(reranker: CrossEncoder) -> None:
    """`predict` and `rank` refuse prompts and invalid batch sizes."""
    with pytest.raises(ValueError, match="prompt="):
        reranker.predict(("a", "b"), prompt="query: ")
    with pytest.raises(ValueError, match="prompt="):
        reranker.rank("a", ["b"], None, False, None, "query: ")
    with pytest.raises(ValueError, match="batch_size must be"):
        reranker.rank("a", ["b"], batch_size=0)


class Sigmoid:
    """An activation with the name of torch's."""

    def __call__(self, logits: Any) -> Any:
        raise AssertionError("the daemon has already applied it")


def test_another_activation_is_refused(reranker: CrossEncoder, fake: FakeDaemon) -> None:
    """Behind a sigmoid, another activation is refused and another sigmoid is not applied."""
    assert np.array_equal(
        reranker.predict(("a b", "a b"), activation_fn=Sigmoid()), reranker.predict(("a b", "a b"))
    )
    with pytest.raises(ValueError, match=r"the sigmoid of judge.*Identity"):
        reranker.predict(("a", "b"), activation_fn=lambda logits: logits)
    with pytest.raises(ValueError, match="the sigmoid of judge"):
        CrossEncoder("judge", activation_fn=lambda logits: logits, socket=fake.socket)


def test_similarity_is_the_models_or_the_apps(served: Callable[..., Path]) -> None:
    """The similarity is the model's, or cosine by default; unknown ones are refused."""
    for stated, expected in ((None, "cosine"), ("dot", "dot")):
        with SentenceTransformer(socket=served(similarity_fn_name=stated)) as embedder:
            assert embedder.similarity_fn_name == expected
    with pytest.raises(ValueError, match="'maxsim' is not one of"):
        SentenceTransformer(socket=served(), similarity_fn_name="maxsim")  # type: ignore[arg-type]
