"""Models from the hub: which files are downloaded, and what is reported if there are none."""

import errno
import fnmatch
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.models.errors import TemporaryError
from sidecar.models.hub import fetch, find, needed

from .hub import COMMIT, Hub, running

MODULES = b"""[
  {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
  {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
]"""
# Each has different contents: the client downloads equal files only once.
WANTED = {
    name: name.encode()
    for name in (
        "config.json", "tokenizer.json", "vocab.txt", "merges.txt", "sentencepiece.bpe.model",
        "chat_template.jinja", "model.safetensors", "1_Pooling/config.json",
        "2_Dense/config.json", "2_Dense/pytorch_model.bin",
    )
} | {"modules.json": MODULES}  # fmt: skip
UNWANTED = {
    name: name.encode()
    for name in (
        "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
        "onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin",
        "openvino/openvino_model.xml", "README.md", ".gitattributes", "modeling_own.py",
    )
}  # fmt: skip
Locate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Hub:
    files = {"some/model": {**WANTED, **UNWANTED}, "some/gated": {"config.json": b"{}"}}
    return Hub(files, gated=frozenset({"some/gated"}))


@pytest.fixture
def locate(hub: Hub, tmp_path: Path) -> Iterator[Locate]:
    """Return a function that runs `locate` in a process: the client reads its address once."""
    code = """
import sys
from sidecar.models.errors import ModelError
from sidecar.models.source import locate
try:
    print(locate(sys.argv[1], local=len(sys.argv) > 2))
except ModelError as error:
    sys.exit(str(error))
"""
    with running(hub) as address:
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}

        def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", code, *words], env={**os.environ, **own, **more},
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip

        yield run


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_what_a_pipeline_needs_is_fetched(hub: Hub, locate: Locate) -> None:
    """The files of every module are downloaded in one format, and are found again offline."""
    done = locate("some/model")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert files_in(folder) == WANTED.keys() == set(hub.fetched)
    for again in (
        locate("some/model", "local"), locate("some/model", HF_HUB_OFFLINE="1"),
        locate("some/model", HF_ENDPOINT="http://127.0.0.1:1"), locate(f"some/model@{COMMIT}"),
        locate("some/model@v1"), locate("some/model@v1", "local"),
    ):  # fmt: skip
        assert Path(again.stdout.strip()) == folder, again.stderr
    assert len(hub.fetched) == len(WANTED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["some/gated"], "is gated on the hub: accept its conditions at https://huggingface.co/"),
        (["some/nothing"], "neither a folder nor on the hub; if it is private there"),
        (["some/model@v2"], "some/model has no revision v2"),
        (["some/model", "local"], "give the path of a model folder, or prepare it on a host"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(locate: Locate, words: list[str], message: str) -> None:
    """A model that is not available is reported in one line that says what to do."""
    done = locate(*words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert message in line
    assert ("HF_TOKEN" in line) == (words[0] in {"some/gated", "some/nothing"})


def test_one_format_of_the_weights_is_needed() -> None:
    """In each folder, only the library's preferred format is needed, whole before shards."""
    shards = [
        "model-1-of-2.safetensors",
        "model-2-of-2.safetensors",
        "model.safetensors.index.json",
    ]
    old = ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin", "pytorch_model.bin.index.json"]
    others = ["model.fp16.safetensors", "training_args.bin", "optimizer.pt", "model.onnx"]
    indices = {shards[2], old[2]}
    for there, weights in (
        (["model.safetensors", *shards, "pytorch_model.bin", *old], {"model.safetensors"}),
        ([*shards, "pytorch_model.bin", *old], set(shards)),
        (["pytorch_model.bin", *old], {"pytorch_model.bin"}),
        (old, set(old)),
        ([], set()),
    ):  # fmt: skip
        assert set(needed([*there, *others], [])) - indices == weights - indices


def test_folders_of_modules_are_needed() -> None:
    """Files in and below the folders that modules.json states are needed, and no other folder's."""
    there = ["0_A/config.json", "0_A/inner/model.safetensors", "0_AB/config.json", "onnx/x.json"]
    assert needed(there, ["0_A", ""]) == there[:2]
    assert needed(["0_A/model.safetensors", "0_A/pytorch_model.bin"], ["0_A/"]) == [
        "0_A/model.safetensors"
    ]


class Client:
    """A stand-in for the hub's client, which records calls and has one folder."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []
        self.error: Exception | None = None

    def model_info(self, repository: str, *, revision: str | None = None) -> Any:
        self.asked.append(("list", revision, {}))
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.names])

    def hf_hub_download(self, repository: str, name: str, *, revision: str | None = None) -> str:
        self.asked.append((name, revision, {}))
        return str(self.folder / name)

    def snapshot_download(
        self, repository: str, *, revision: str | None = None, **options: Any
    ) -> str:
        self.asked.append(("fetch", revision, options))
        if self.error and not options.get("local_files_only"):
            raise self.error
        return str(self.folder)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    import huggingface_hub

    (tmp_path / "modules.json").write_bytes(MODULES)
    client = Client(tmp_path, ["modules.json", "vocab[1].txt", "model.safetensors"])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: client)
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(client, name))
    return client


@pytest.mark.parametrize(("name", "revision"), [("org/model", None), ("org/model@v1", "v1")])
def test_everything_is_of_the_revision_that_was_asked_for(
    client: Client, name: str, revision: str | None
) -> None:
    """Lists of files, modules, downloads and offline look-ups all use the requested revision."""
    assert fetch(name) == client.folder
    assert [what for what, _, _ in client.asked] == ["list", "modules.json", "fetch"]
    assert find(name) == client.folder
    assert {asked for _, asked, _ in client.asked} == {revision}
    found = client.asked[-1][2]
    assert found["local_files_only"]


def test_a_name_with_brackets_is_no_pattern(client: Client) -> None:
    """A file name with brackets matches only itself."""
    fetch("org/model")
    patterns = client.asked[-1][2]["allow_patterns"]
    for name in client.names:
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns), name
    assert not any(fnmatch.fnmatchcase("vocab1.txt", pattern) for pattern in patterns)


def test_a_full_disk_is_told_and_nothing_else_is_taken_for_one(client: Client) -> None:
    """A full disk is reported as such; after any other failure, an earlier download serves."""
    client.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(TemporaryError, match=r"org/model cannot be downloaded: .*No space left"):
        fetch("org/model")
    client.error = ConnectionError("no route")
    assert fetch("org/model") == client.folder


def test_adapters_and_what_reads_texts_are_needed() -> None:
    """Besides weights, adapters, vocabularies, SentencePiece models and templates are needed."""
    there = [
        "adapter_config.json", "adapter_model.safetensors", "model.safetensors", "spiece.model",
        "vocab.txt", "merges.txt", "chat_template.jinja", "tokenizer.json",
    ]  # fmt: skip
    assert set(needed([*there, "adapter_model.bin", "notes.md"], [])) == {*there}
