"""End to end, from a client to a real model in a real daemon and back."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_lib import BadRequest, Client
from sidecar.models.model import Model, load

from .cli.command import prepare
from .daemon import Daemon

pytestmark = pytest.mark.slow

TEXTS = [
    "how do I renew a passport",
    "ok",
    "Copper conducts heat about twenty-five times better than stainless steel. " * 9,
    "Das Museum ist montags geschlossen.",
    "a much longer text, about nothing in particular. " * 80,
    "",
    "SELECT name FROM users WHERE id = 7;",
]


@pytest.fixture(scope="module")
def model(minilm_artifact: Path) -> Model:
    return load(minilm_artifact)


@pytest.fixture(scope="module")
def alone(model: Model) -> list[bytes]:
    """Each text's vector, computed alone in this process."""
    vectors = [model.forward(row) for row in model.tokenize(TEXTS)]
    return [(v / np.sqrt(np.square(v).sum(dtype=np.float32))).tobytes() for v in vectors]


@given(picks=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_same_bytes_in_every_batch(daemon: Daemon, alone: list[bytes], picks: list[int]) -> None:
    """A text's vector has the same bytes alone and in any batch."""
    with Client(daemon.socket) as client:
        vectors = client.embed([TEXTS[i] for i in picks]).vectors
    assert [vector.tobytes() for vector in vectors] == [alone[i] for i in picks]


def test_same_bytes_whoever_else_is_calling(daemon: Daemon, alone: list[bytes]) -> None:
    """Eight concurrent clients, each with its own order of texts, get the same bytes."""
    wrong: list[int] = []

    def ask(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(TEXTS)), 3))
        with Client(daemon.socket) as client:
            vectors = [client.encode(TEXTS[index]) for index in order]
        pairs = zip(order, vectors, strict=True)
        wrong.extend(int(i) for i, vector in pairs if vector.tobytes() != alone[i])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_long_text_is_reported_or_refused(daemon: Daemon) -> None:
    """A text that is too long is truncated and reported, or refused with its index."""
    with Client(daemon.socket) as client:
        assert client.embed(TEXTS).truncated == (4,)
        with pytest.raises(BadRequest, match="the 256-token limit") as caught:
            client.embed(TEXTS, truncate=False)
        assert caught.value.index == 4


def test_dimensions_and_normalisation_are_the_callers(daemon: Daemon) -> None:
    """Reduced dimensions are renormalised; without normalisation they are a prefix."""
    with Client(daemon.socket) as client:
        short = client.encode(TEXTS[0], dimensions=64)
        raw = client.encode(TEXTS[0], normalize=False)
        raw_short = client.encode(TEXTS[0], normalize=False, dimensions=64)
    assert short.shape == (64,)
    assert np.linalg.norm(short) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(raw[:64], raw_short)


def test_embedding_model_reranks_and_says_so(daemon: Daemon) -> None:
    """Without a cross-encoder, the embedding model reranks, and the reply names the method."""
    documents = ["bread rises because of yeast", "passports are renewed at the office"]
    with Client(daemon.socket) as client:
        reply = client.rerank(TEXTS[0], documents)
    assert reply.method == "embedding"
    assert reply.results[0].index == 1


def test_status_tells_what_serves(daemon: Daemon) -> None:
    """Status has the model, its quantization, limits and prompts, and the memory held."""
    with Client(daemon.socket) as client:
        status = client.status()
    (model,) = status["models"]
    assert model["quantization"] == "int8"
    assert (model["dimensions"], model["max_tokens"], model["normalize"]) == (384, 256, True)
    assert model["prompts"] == {"query": "", "document": ""}
    assert (model["default_prompt_name"], model["activation"]) == (None, None)
    assert model["quality"]["mean"] >= 0.995
    assert status["memory"]["pss_bytes"] > 0


def test_events_never_hold_a_text(daemon: Daemon) -> None:
    """A request is logged, but its text is not."""
    with Client(daemon.socket) as client:
        client.encode(["xyzzyplugh is a word that nobody logs"])
    assert daemon.events("request.completed")
    assert "xyzzyplugh" not in daemon.log_text()


def test_stop_finishes_what_was_accepted(minilm_artifact: Path, tmp_path: Path) -> None:
    """After SIGTERM, a request in flight is answered, and the exit code is 0."""
    with Daemon(tmp_path, "--embedding-model", str(minilm_artifact)) as daemon:
        answers: list[np.ndarray] = []

        def ask() -> None:
            with Client(daemon.socket) as client:
                answers.append(client.embed(TEXTS * 40).vectors)

        thread = threading.Thread(target=ask)
        thread.start()
        with Client(daemon.socket) as client:
            while client.status()["requests"]["in_flight"] == 0:
                pass
        assert daemon.stop() == 0
        thread.join()
    assert answers[0].shape == (len(TEXTS) * 40, 384)
    assert not daemon.socket.exists()


def test_kill_loses_no_request(minilm_artifact: Path, tmp_path: Path, alone: list[bytes]) -> None:
    """After kill -9 during a request, the client gets its answer from the next daemon."""
    with Daemon(tmp_path, "--embedding-model", str(minilm_artifact)) as daemon:
        answers: list[np.ndarray] = []

        def ask() -> None:
            with Client(daemon.socket, timeout=60) as client:
                answers.append(client.embed(TEXTS * 40).vectors)

        thread = threading.Thread(target=ask)
        thread.start()
        with Client(daemon.socket) as client:
            while client.status()["requests"]["in_flight"] == 0:
                pass
        daemon.kill()
        daemon.start()
        thread.join()
    assert answers[0][0].tobytes() == alone[0]


def test_stop_while_a_model_is_prepared_leaves_nothing(minilm_folder: Path, tmp_path: Path) -> None:
    """SIGTERM during preparation exits with 0, and leaves no partial artifact."""
    daemon = Daemon(tmp_path, "--embedding-model", str(minilm_folder))
    daemon.launch()
    cache = tmp_path / "cache"

    def drafts() -> list[Path]:  # folders only: the cache also holds a file of digests
        return [path for path in cache.glob(".*") if path.is_dir()]

    while not drafts():
        time.sleep(0.01)
    assert daemon.stop() == 0
    deadline = time.monotonic() + 60
    while drafts() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {path.name for path in cache.iterdir()} <= {"digests.json"}


def test_trained_reranker_finds_the_answer(
    make_model: Callable[..., Path], reranker_folder: Path, tmp_path: Path
) -> None:
    """A trained cross-encoder ranks the right answer first."""
    embedder = make_model()
    for folder in (embedder, reranker_folder):
        prepare(folder, tmp_path / "cache", USE_QUANTIZATION="false")
    flags = ["--embedding-model", str(embedder), "--reranker-model", str(reranker_folder)]
    with (
        Daemon(tmp_path, *flags, "--use-quantization", "false") as daemon,
        Client(daemon.socket) as client,
    ):
        reply = client.rerank(
            "who wrote the opera Carmen",
            ["The weather was fine.", "Carmen is an opera by Georges Bizet.", "Bread."],
        )
    assert reply.method == "cross_encoder"
    assert reply.results[0].index == 1


def test_prompts_are_applied_by_name(make_model: Callable[..., Path], tmp_path: Path) -> None:
    """`prompt_name` prepends the model's prompt of that name; `status` lists all prompts."""
    folder = make_model()
    prompts = '{"prompts": {"query": "query: ", "passage": "passage: "}}'
    (folder / "config_sentence_transformers.json").write_text(prompts)
    prepare(folder, tmp_path / "cache")
    with (
        Daemon(tmp_path, "--embedding-model", str(folder)) as daemon,
        Client(daemon.socket) as client,
    ):
        prompted = client.encode("a text", prompt_name="query")
        assert np.array_equal(prompted, client.encode("query: a text"))
        assert np.array_equal(client.encode("x", prompt_name="document"), client.encode("x"))
        (model,) = client.status()["models"]
        assert model["prompts"] == {"query": "query: ", "document": "", "passage": "passage: "}
        with pytest.raises(BadRequest, match="query, document, passage"):
            client.encode("a text", prompt_name="title")
