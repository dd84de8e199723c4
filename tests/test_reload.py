"""Reloading a real daemon's settings file by SIGHUP, under load."""

import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import psutil
import pytest

from client_lib import Client
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest

from .daemon import Configured
from .preparing import prepare_quickly

pytestmark = pytest.mark.slow

PATIENCE = 120
TEXTS = [f"text {i} " + "copper conducts heat better than steel " * (i % 7) for i in range(40)]


@pytest.fixture(scope="module")
def other_artifact(
    make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small model with random weights, in INT8."""
    output = tmp_path_factory.mktemp("artifacts") / "small-int8"
    precision = Precision("int8", weight_bits=7, floor=0.0)
    prepare_quickly(
        PrepareRequest(folder=make_model(), name="small", precision=precision, output=output)
    )
    return output


@pytest.fixture(scope="module")
def alone(minilm_artifact: Path, other_artifact: Path) -> Mapping[str, list[bytes]]:
    """Each text's vector by each model, computed alone in this process."""
    return {
        model.name: [
            (v / np.sqrt(np.square(v).sum(dtype=np.float32))).tobytes()
            for v in (model.forward(model.tokenize([text])[0]) for text in TEXTS)
        ]
        for model in map(load, (minilm_artifact, other_artifact))
    }


@pytest.fixture
def daemon(minilm_artifact: Path, tmp_path: Path) -> Iterator[Configured]:
    with Configured(tmp_path, minilm_artifact) as running:
        yield running
    assert running.process is not None
    assert running.process.returncode == 0
    assert not [name for name in ("peer.failed", "loop.failed") if running.events(name)]


def ask(path: Path, alone: Mapping[str, list[bytes]], seed: int, over: Event) -> list[str]:
    """Send requests until `over`, check every answer, and return the models that answered."""
    chance = random.Random(seed)
    models: list[str] = []
    with Client(path, timeout=PATIENCE, retries=False) as client:
        while not over.is_set():
            picks = [chance.randrange(len(TEXTS)) for _ in range(chance.choice((1, 1, 9)))]
            reply = client.embed([TEXTS[i] for i in picks])
            expected = [alone[reply.model][i] for i in picks]
            assert [vector.tobytes() for vector in reply.vectors] == expected
            models.append(reply.model)
    return models


def test_reloads_under_load_fail_no_request(
    daemon: Configured,
    alone: Mapping[str, list[bytes]],
    minilm_artifact: Path,
    other_artifact: Path,
) -> None:
    """Five clients without retries see no error over six reloads, and only right vectors."""
    over = Event()
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(ask, daemon.socket, alone, seed, over) for seed in range(5)]
        try:
            for i in range(1, 7):
                daemon.write(other_artifact if i % 2 else minilm_artifact)
                daemon.hang_up()
                daemon.wait_for("engine.retired", i)
        finally:
            over.set()
        for answers in asking:
            assert set(answers.result(PATIENCE)) == set(alone)
    assert daemon.events("request.failed") == []


def test_a_reload_that_cannot_be_leaves_the_old_model(
    daemon: Configured, tmp_path: Path, minilm_artifact: Path
) -> None:
    """A failed reload reports its reason and keeps the old model; a valid one then succeeds."""
    with Client(daemon.socket, timeout=PATIENCE) as client:
        for i, (model, others, reason) in enumerate(
            (
                (minilm_artifact, {"SIDECAR_THREADS": "many"}, "SIDECAR_THREADS=many"),
                (minilm_artifact, {"SIDECAR_TYPO": "1"}, "SIDECAR_TYPO is not a setting"),
                (tmp_path / "none", {}, "none"),
            ),
            start=1,
        ):
            daemon.write(model, **others)
            daemon.hang_up()
            daemon.wait_for("server.reload_failed", i)
            assert reason in daemon.events("server.reload_failed")[-1]["reason"]
            assert client.embed("a text").model == "all-MiniLM-L6-v2"
        daemon.write(minilm_artifact, SIDECAR_THREADS="1", SIDECAR_LOG_LEVEL="debug")
        daemon.hang_up()
        daemon.wait_for("engine.retired")
        assert client.status()["threads"] == 1
    (event,) = daemon.events("server.reloaded")
    assert event["changed"] == ["threads", "log_level"]
    with Client(daemon.socket, timeout=PATIENCE) as client:
        client.ping()
    daemon.wait_for("peer.connected")  # logged at level debug


def test_a_model_that_is_prepared_meanwhile_is_not_waited_for(
    daemon: Configured, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGTERM while a reload prepares exits with 0, and leaves no partial artifact or process."""
    cache = tmp_path / "cache"
    before = set(cache.iterdir())
    daemon.write(make_model())
    daemon.hang_up()
    daemon.wait_for("model.preparing")
    working = daemon.children()
    assert daemon.stop() == 0
    assert psutil.wait_procs(working, PATIENCE)[1] == []
    assert set(cache.iterdir()) == before


def test_memory_comes_back(daemon: Configured, minilm_artifact: Path, other_artifact: Path) -> None:
    """Memory does not grow by a model's size over many reloads."""
    for i in range(1, 13):
        daemon.write(minilm_artifact if i % 2 else other_artifact)
        with Client(daemon.socket, timeout=PATIENCE) as client:
            client.embed(TEXTS)
        daemon.hang_up()
        daemon.wait_for("engine.retired", i)
    held = [event["rss_bytes"] for event in daemon.events("engine.retired")]
    assert held[10] < held[2] + 22e6  # less than one model of 23 MB in eight more reloads
