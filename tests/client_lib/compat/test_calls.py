"""What the two classes request from a daemon, and what they make of its replies."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import ClientClosed
from client_lib.compat import CrossEncoder, SentenceTransformer, output, similarity
from client_lib.compat.progress import with_bar
from client_lib.wire.messages import Embed, Rerank

from ..fake_daemon import FakeDaemon, vector
from .test_refusals import EMBEDDER, RERANKER, script

Served = Callable[..., Path]
RAW = {"normalize": False}


@pytest.fixture
def served(fake: FakeDaemon) -> Served:
    """Make the daemon report its two models with `changes`; return its socket."""

    def set_up(**changes: Any) -> Path:
        fake.script = script([{**RERANKER, **changes}, {**EMBEDDER, **changes}])
        return fake.socket

    return set_up


def asked(fake: FakeDaemon) -> Any:
    """Return the last request, which must have been one with texts."""
    return fake.seen[-1]


def test_a_model_is_asked_for_by_the_daemons_name_of_it(fake: FakeDaemon) -> None:
    """Requests use the daemon's name of the model: the one asked for, or the first of its kind."""
    others = [{**EMBEDDER, "name": "other"}, {**RERANKER, "name": "second"}]
    fake.script = script([RERANKER, EMBEDDER, *others])
    for named, name in ((None, "org/small"), ("small", "org/small"), ("other", "other")):
        with SentenceTransformer(named, socket=fake.socket) as embedder:
            embedder.encode("a")
        assert asked(fake).model == name
    for named, name in ((None, "judge"), ("/models/second", "second")):
        with CrossEncoder(named, socket=fake.socket) as reranker:
            reranker.predict(("a", "b"))
        assert asked(fake).model == name


def test_time_is_what_was_given(served: Served, fake: FakeDaemon) -> None:
    """The timeout in seconds bounds every request of both classes."""
    for kind, texts in ((SentenceTransformer, ["a"]), (CrossEncoder, [("a", "b")])):
        with kind(socket=served(), timeout=7) as model:
            getattr(model, "encode" if kind is SentenceTransformer else "predict")(texts)
        assert 0 < asked(fake).timeout_ms <= 7_000


def test_a_closed_model_says_so(served: Served, fake: FakeDaemon) -> None:
    """`close` and leaving the block close the connection, and later calls raise `ClientClosed`."""
    with SentenceTransformer(socket=served()) as embedder:
        embedder.encode("a")
    reranker = CrossEncoder(socket=fake.socket)
    reranker.predict(("a", "b"))
    reranker.close()
    fake.wait_until_left()
    with pytest.raises(ClientClosed):
        embedder.encode("a")
    with pytest.raises(ClientClosed):
        reranker.predict(("a", "b"))


def test_dimensions_are_cut_where_the_library_cuts_them(served: Served, fake: FakeDaemon) -> None:
    """Normalised vectors are truncated here unless normalised again; others in the daemon."""
    whole = vector("abcdefgh")
    with SentenceTransformer(socket=served()) as scaled:
        cut = scaled.encode(["abcdefgh"], truncate_dim=3)
        assert np.array_equal(cut, [whole[:3]])
        assert cut.flags.c_contiguous
        assert (asked(fake).dimensions, asked(fake).normalize) == (None, None)
        for options in ({"normalize_embeddings": True}, {"precision": "ubinary"}):
            scaled.encode(["abcdefgh"], truncate_dim=3, **options)
            assert asked(fake).dimensions == 3, options
            assert asked(fake).normalize == options.get("normalize_embeddings")
        scaled.encode(["a"], truncate_dim=1000, normalize_embeddings=True)
        assert asked(fake).dimensions == 8
    with SentenceTransformer(socket=served(**RAW)) as raw:
        raw.encode(["abcdefgh"], truncate_dim=3)
        assert (asked(fake).dimensions, asked(fake).normalize) == (3, None)


def test_a_calls_dimensions_go_before_the_models_own(served: Served, fake: FakeDaemon) -> None:
    """A call's `truncate_dim` takes precedence over the instance's."""
    with SentenceTransformer(socket=served(**RAW), truncate_dim=5) as embedder:
        for call, dimensions in ((None, 5), (3, 3), (7, 7)):
            embedder.encode(["a"], truncate_dim=call)
            assert asked(fake).dimensions == dimensions
        assert embedder.get_embedding_dimension() == 5
        with pytest.raises(RuntimeError), embedder.truncate_embeddings(2):  # noqa: PT012
            assert embedder.get_sentence_embedding_dimension() == 2
            embedder.encode(["a"])
            assert asked(fake).dimensions == 2
            raise RuntimeError
        assert embedder.truncate_dim == 5
        embedder.truncate_dim = 1000
        assert embedder.get_embedding_dimension() == 8


def test_an_apps_prompts_are_added_to_the_models(served: Served, fake: FakeDaemon) -> None:
    """An app's prompts override the model's of the same name; the rest are requested by name."""
    known = {"query": "q: ", "document": "d: "}
    own = {"query": "mine: ", "plain": ""}
    with SentenceTransformer(
        socket=served(prompts=known), prompts=own, default_prompt_name="document"
    ) as embedder:
        assert embedder.prompts == {**known, **own}
        for ask, prompt_name, text in (
            (embedder.encode, "document", "a"),
            (embedder.encode_query, None, "mine: a"),
            (embedder.encode_document, "document", "a"),
        ):
            ask(["a"])
            assert (asked(fake).prompt_name, asked(fake).input) == (prompt_name, (text,))
    with pytest.raises(ValueError, match="'other' is not one of"):
        SentenceTransformer(socket=fake.socket, default_prompt_name="other")


def test_a_default_prompt_of_the_model_is_known(served: Served, fake: FakeDaemon) -> None:
    """The model's default prompt applies to calls without a prompt."""
    known = {"query": "q: ", "document": ""}
    with SentenceTransformer(socket=served(prompts=known, default_prompt_name="query")) as embedder:
        assert embedder.default_prompt_name == "query"
        embedder.encode("a")
        assert asked(fake).prompt_name == "query"
        embedder.encode("a", prompt="mine: ")
        assert (asked(fake).prompt_name, asked(fake).input) == ("document", ("mine: a",))


def test_a_calls_own_prompt_goes_before_its_role(served: Served, fake: FakeDaemon) -> None:
    """A prompt or a prompt name takes precedence in `encode_query` and `encode_document`."""
    known = {"query": "q: ", "passage": "p: ", "title": "t: "}
    with SentenceTransformer(socket=served(prompts=known)) as embedder:
        for ask, own in ((embedder.encode_query, "query"), (embedder.encode_document, "passage")):
            ask(["a"])
            assert asked(fake).prompt_name == own
            ask(["a"], prompt_name="title")
            assert asked(fake).prompt_name == "title"
            ask(["a"], prompt="mine: ")
            assert (asked(fake).prompt_name, asked(fake).input) == (None, ("mine: a",))


def test_pairs_travel_in_requests_of_one_query(served: Served, fake: FakeDaemon) -> None:
    """Pairs are sent as requests of one query and at most 64 documents, and keep their order."""
    pairs = [("a b c", " ".join("abc"[: i % 4])) for i in range(100)]
    pairs += [("x", "x"), ("y", "x"), ("x", "x y")]
    with CrossEncoder(socket=served()) as reranker:
        scores = reranker.predict(pairs)
    requests = [request for request in fake.seen if isinstance(request, Rerank)]
    assert [len(request.documents) for request in requests] == [64, 36, 1, 1, 1]
    expected = [len({*query.split()} & {*document.split()}) for query, document in pairs]
    assert scores.dtype == np.float32
    assert scores.tolist() == expected


def test_one_pair_has_one_score(served: Served) -> None:
    """A single pair gets a single score, and a list of one pair a list of one score."""
    with CrossEncoder(socket=served()) as reranker:
        assert np.shape(reranker.predict(("a b", "a b"))) == ()
        assert np.shape(reranker.predict(["a b", "a b"])) == ()
        for one in ([("a b", "a b")], [["a b", "a b"]], np.array([["a b", "a b"]])):
            assert reranker.predict(one).tolist() == [2.0]


def test_a_ranking_has_the_best_first(served: Served) -> None:
    """`rank` returns indexes and scores, best first, with `top_k` and texts on request."""
    documents = ["snow", "a cat sleeps", "a dog", "cat"]
    with CrossEncoder(socket=served()) as reranker:
        ranked = reranker.rank("a cat", documents)
        best = reranker.rank("a cat", documents, 1, True)
    assert [(hit["corpus_id"], hit["score"]) for hit in ranked] == [(1, 2), (2, 1), (3, 1), (0, 0)]
    assert best == [{"corpus_id": 1, "score": 2.0, "text": "a cat sleeps"}]


def test_tensors_go_to_the_calls_device_or_to_the_models(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors are placed on the call's device, or else on the instance's."""
    devices: list[Any] = []

    def as_tensor(array: Any, device: Any = None) -> Any:
        devices.append(device)
        return array

    monkeypatch.setattr(output, "as_tensor", as_tensor)
    with (
        SentenceTransformer(socket=served(), device="cuda:0") as embedder,
        CrossEncoder(socket=served(), device="cuda:0") as reranker,
    ):
        for ask in (
            lambda **to: embedder.encode(["a"], convert_to_tensor=True, **to),
            lambda **to: reranker.predict([("a", "b")], convert_to_numpy=False, **to),
        ):
            ask()
            ask(device="cuda:1")
    assert devices == ["cuda:0", "cuda:1"] * 2


def test_nothing_is_what_it_is_in_the_library(served: Served, fake: FakeDaemon) -> None:
    """Empty inputs yield an empty float64 array without a request."""
    with SentenceTransformer(socket=served()) as embedder, CrossEncoder(socket=served()) as judge:
        for empty in (embedder.encode([]), judge.predict([])):
            assert (empty.shape, empty.dtype) == ((0,), np.float64)
        assert judge.rank("a", []) == []
    assert not any(isinstance(request, Embed | Rerank) for request in fake.seen)


def test_a_bar_is_there_where_a_log_would_be(caplog: pytest.LogCaptureFixture) -> None:
    """By default a progress bar is shown at the log levels INFO and DEBUG only."""
    steps = [1, 2]
    shown = {}
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        with caplog.at_level(level, logger="client_lib.compat.progress"):
            shown[level] = with_bar(steps, 2, show=None) is not steps
    assert shown == {logging.DEBUG: True, logging.INFO: True, logging.WARNING: False,
                     logging.ERROR: False}  # fmt: skip
    assert with_bar(steps, 2, show=False) is steps


_A, _B = np.random.default_rng(3).normal(size=(2, 3, 8)).astype(np.float32)
# The definitions in sentence-transformers' documentation.
SCORES: dict[str, Callable[[Any, Any], float]] = {
    "cosine": lambda a, b: sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5),
    "dot": lambda a, b: sum(a * b),
    "euclidean": lambda a, b: -(sum((a - b) ** 2) ** 0.5),
    "manhattan": lambda a, b: -sum(abs(a - b)),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each similarity matches its definition, as a matrix and pairwise."""
    monkeypatch.setattr(similarity, "find_spec", lambda _: None)  # arrays, as without torch
    score = SCORES[name]
    expected = [[score(a, b) for b in _B] for a in _A[:2]]
    for a, b in ((_A[:2], _B), (list(_A[:2]), list(_B)), (_A[:2].tolist(), _B.tolist())):
        np.testing.assert_allclose(similarity.similarity(name, a, b), expected, atol=1e-5)
    np.testing.assert_allclose(similarity.similarity(name, _A[0], _B), expected[:1], atol=1e-5)
    paired = similarity.similarity_pairwise(name, _A, _B)
    np.testing.assert_allclose(paired, [score(*ab) for ab in zip(_A, _B, strict=True)], atol=1e-5)
    one = similarity.similarity_pairwise(name, _A[0], _B[0])
    np.testing.assert_allclose(one, score(_A[0], _B[0]), atol=1e-5)


def test_scores_are_of_float32_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are computed in at least float32, and zero vectors score 0."""
    monkeypatch.setattr(similarity, "find_spec", lambda _: None)
    for given, kept in ((np.float16, np.float32), (np.int8, np.float32), (np.float64, np.float64)):
        ones = np.ones((1, 4096), given)
        scores = similarity.similarity("dot", ones * given(5), ones * given(5))
        assert (scores.dtype, scores.item()) == (kept, 4096 * 25)
    zeros = similarity.similarity("cosine", np.zeros((1, 8)), _B)
    assert np.array_equal(zeros, np.zeros((1, 3)))


def test_the_score_is_the_one_that_is_set(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's similarity, passed or set later, takes precedence over the model's."""
    monkeypatch.setattr(similarity, "find_spec", lambda _: None)
    stated = {"similarity_fn_name": "dot"}
    with SentenceTransformer(socket=served(**stated), similarity_fn_name="manhattan") as embedder:
        assert embedder.similarity([1.0, 2.0], [3.0, 5.0]).item() == -5
        embedder.similarity_fn_name = "euclidean"
        assert embedder.similarity_pairwise([[1.0, 2.0]], [[4.0, 6.0]]).tolist() == [-5]
