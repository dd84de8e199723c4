"""Reading config.json as the model's class does, and naming files that cannot be read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from sidecar.cli import main
from sidecar.encoder.architecture import Head, Pooling
from sidecar.encoder.families import FAMILIES
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.config import ALIASES, DEFAULTS, read_config, transformer_of
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.source import locate

from ..later import Later

transformers = Later("transformers")

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def bert(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def stated(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(read: Callable[[Path], Any], folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", list(DEFAULTS))
def test_defaults_are_the_librarys(family: str, tmp_path: Path) -> None:
    """Every default equals that of the library's class, under each name of its key."""
    own = transformers.AutoConfig.for_model(family)
    assert dict(own.attribute_map) == dict(ALIASES.get(family, {}))
    config = read_config(stated(tmp_path / "m", model_type=family))
    assert config.keys() >= DEFAULTS[family].keys()
    for key, value in config.items():
        assert value == getattr(own, key), key
        assert type(value) is type(getattr(own, key)), key


def test_what_is_stated_counts(tmp_path: Path) -> None:
    """A value may be stated under either name; of both, the alias counts, as in the library."""
    for keys, dim in (
        ({"dim": 96}, 96), ({"hidden_size": 96}, 96), ({"dim": 12, "hidden_size": 96}, 96),
    ):  # fmt: skip
        folder = stated(tmp_path / "m", model_type="distilbert", **keys)
        own = transformers.AutoConfig.from_pretrained(folder)
        config = read_config(folder)
        assert (config["dim"], config["hidden_size"]) == (dim, dim) == (own.dim, own.hidden_size)


def test_labels_are_counted_as_there(tmp_path: Path) -> None:
    """Labels are counted as in the library: by number, by names, or as two if neither is stated."""
    names = {"0": "a", "1": "b", "2": "c"}
    for keys in (
        {}, {"num_labels": 1}, {"id2label": names}, {"id2label": names, "num_labels": 1},
        {"id2label": None, "num_labels": 3}, {"id2label": {}},
    ):  # fmt: skip
        folder = stated(tmp_path / "m", model_type="bert", **keys)
        own = transformers.AutoConfig.from_pretrained(folder)
        assert read_config(folder)["num_labels"] == own.num_labels, keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "384"), ("hidden_size", 384.0), ("hidden_size", None),
        ("hidden_size", True), ("layer_norm_eps", 1), ("layer_norm_eps", "1e-5"),
        ("hidden_act", 3), ("is_decoder", "no"), ("id2label", ["a"]), ("hidden_size", -384),
        ("num_attention_heads", 5), ("num_hidden_layers", 0), ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", float("inf")), ("model_type", 7), ("model_type", None),
        ("architectures", "BertModel"), ("num_labels", "1"), ("auto_map", []),
        ("sentence_transformers", "no"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(folder: Path, key: str, value: Any) -> None:
    """A wrong value in config.json is reported in one line with the file and the key."""
    edit(folder / "config.json", **{key: value})
    text = refused(describe, folder)
    assert str(folder / "config.json") in text
    assert key in text or (key == "num_attention_heads" and "heads" in text)


def test_a_config_without_a_class_is_refused(folder: Path) -> None:
    """A config.json without a model_type is refused: the library does not guess it either."""
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    stated(folder, **config)
    assert "has no model_type" in refused(describe, folder)


def test_keys_that_the_class_has_defaults_for(make_model: MakeModel) -> None:
    """Keys with a default may be left out; the defaults are checked against the weights."""
    folder = make_model(vocab_size=30_522)
    config = json.loads((folder / "config.json").read_text())
    for key in ("hidden_act", "layer_norm_eps", "vocab_size", "type_vocab_size", "architectures"):
        del config[key]
    stated(folder, **config)
    assert len(read_encoder(folder, describe(folder)).layers) == 2


def test_epsilons_are_the_configs(tmp_path: Path) -> None:
    """Every layer norm of every family has the stated epsilon; DistilBERT's is always 1e-12."""
    for family, epsilon in (
        ("bert", 0.25), ("roberta", 1e-5), ("camembert", 1e-6), ("xlm-roberta", 0.5),
        ("electra", 1e-3), ("ernie", 3e-5), ("mpnet", 0.125), ("distilbert", 1e-12),
    ):  # fmt: skip
        key = {} if family == "distilbert" else {"layer_norm_eps": epsilon}
        config = read_config(stated(tmp_path / family, model_type=family, **key))
        table = np.zeros((32, 768), np.float32)
        encoder = FAMILIES[family].read(config, lambda _, table=table: table, Head((Pooling.MEAN,)))
        norms = [encoder.embeddings.norm, encoder.layers[5].attention_norm]
        norms.append(encoder.layers[0].output_norm)
        assert [norm and norm.epsilon for norm in norms] == [epsilon] * 3, family


DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("config.json", lambda path: path.write_bytes(b""), "is not valid JSON"),
    ("config.json", lambda path: path.write_bytes(b"{"), "is not valid JSON"),
    ("config.json", lambda path: path.write_bytes(b"\xff\xfe{"), "is not valid JSON"),
    ("config.json", lambda path: path.write_bytes(b"[" * 100_000), "is not valid JSON"),
    ("config.json", lambda path: path.write_bytes(b"[1]"), "holds a list, not an object"),
    ("config.json", lambda path: path.write_bytes(b"null"), "holds null, not an object"),
    ("config.json", lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ("modules.json", lambda path: path.write_bytes(b"{}"), "holds an object, not a list"),
    ("modules.json", lambda path: path.write_bytes(b"[1]"), "without a valid type and path"),
    ("modules.json", lambda path: path.write_bytes(b'[{"type": 1}]'), "without a valid type"),
    ("modules.json", lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ("modules.json", lambda path: path.write_bytes(b'[{"type": "x.Dense", "path": "../a"}]'),
     "outside its folder: ../a"),
    ("modules.json", lambda path: path.write_bytes(b'[{"type": "x.Dense", "path": "/etc"}]'),
     "outside its folder: /etc"),
    ("modules.json", lambda path: path.write_bytes(b'[{"type": "x.Dense", "path": "a/../b"}]'),
     "outside its folder: a/../b"),
    ("config_sentence_transformers.json", lambda path: path.write_bytes(b'{"prompts": ["q"]}'),
     "prompts must map names to strings"),
    ("config_sentence_transformers.json", lambda path: path.write_bytes(b'{"prompts": {"q": 1}}'),
     "prompts must map names to strings"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_a_damaged_file_is_named(
    folder: Path, name: str, damage: Callable[[Path], Any], message: str
) -> None:
    """A file that is empty, truncated, badly encoded, of another kind or a directory is named."""
    damage(folder / name)
    text = refused(describe, folder)
    assert str(folder / name) in text
    assert message in text


def test_weights_that_are_not_the_model_are_left_to_the_library(folder: Path) -> None:
    """Weights that are quantized, renamed or to be adapted are left to the library."""
    for key in ("quantization_config", "transformers_weights", "per_layer_config"):
        edit(folder / "config.json", **{key: {"a": 1}})
        with pytest.raises(UnknownArchitectureError, match=f"{key} is not supported"):
            describe(folder)
        edit(folder / "config.json", **{key: None})
    describe(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnknownArchitectureError, match=r"adapter_config\.json is not supported"):
        describe(folder)


def test_the_transformer_lies_where_the_modules_say(folder: Path) -> None:
    """The transformer is in the folder that modules.json states, or else in the model's own."""
    assert transformer_of(folder) == folder
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules[::-1]))
    assert transformer_of(folder) == folder / "0_Transformer"
    (folder / "modules.json").unlink()
    assert transformer_of(folder) == folder


@contextmanager
def as_nobody() -> Iterator[None]:
    """Become an unprivileged user if the test runs as root, so that permissions apply."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def open_folder(bert: Path) -> Iterator[Path]:
    """A copy in a folder that every user may enter, unlike pytest's own."""
    with TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        copy = Path(shutil.copytree(bert, Path(above) / "model"))
        copy.chmod(0o755)
        yield copy


@pytest.mark.parametrize("name", ["", "..", "config.json", "modules.json", "model.safetensors"])
def test_what_is_closed_is_named(open_folder: Path, name: str) -> None:
    """An inaccessible folder, parent or file is named, with the user who tried to read it."""
    path = open_folder / name
    path.chmod(0)
    with as_nobody():
        text = refused(
            lambda folder: read_encoder(locate(str(folder)), describe(folder)), open_folder
        )
    path.chmod(0o755)
    assert "cannot be read: Permission denied, for user" in text
    assert str(open_folder if name == ".." else open_folder / name) in text


@pytest.mark.parametrize("command", ["prepare", "plan"])
def test_commands_say_it_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Commands report a folder that cannot be read in one line, and exit with 78."""
    (folder / "config.json").write_text("[]")
    assert main([command, str(folder), "--cache-dir", str(tmp_path)]) == 78
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("sidecar: ")
    assert "config.json holds a list, not an object" in line


def test_doctor_names_a_folder_that_cannot_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The doctor reports a folder that cannot be read as an error of the model."""
    (folder / "config.json").write_text("[]")
    main(["doctor", "--embedding-model", str(folder), "--json"])
    text = capsys.readouterr().out
    assert "config.json holds a list, not an object" in text


@pytest.mark.slow
def test_the_daemon_ends_with_78(folder: Path, tmp_path: Path) -> None:
    """Truncated weights, found while preparing, end the daemon with 78 and without a traceback."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    words = [
        "serve",
        "--embedding-model",
        folder,
        "--socket",
        tmp_path / "s",
        "--cache-dir",
        tmp_path,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 78
    assert "is not a complete safetensors file" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
