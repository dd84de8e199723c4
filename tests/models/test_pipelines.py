"""Pooling and the modules after it, compared with sentence-transformers' own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sidecar.encoder.architecture import Activation, Encoder, Head, Linear
from sidecar.encoder.architecture import Dense as OurDense
from sidecar.encoder.architecture import Pooling as OurPooling
from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder import steps
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.model import load
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest

from ..later import Later
from .by_library import TEXTS, differences

torch = Later("torch")
SentenceTransformer = Later("sentence_transformers", "SentenceTransformer")
Dense = Later("sentence_transformers.base.modules", "Dense")
Normalize = Later("sentence_transformers.base.modules", "Normalize")
Dropout = Later("sentence_transformers.sentence_transformer.modules", "Dropout")
LayerNorm = Later("sentence_transformers.sentence_transformer.modules", "LayerNorm")
Pooling = Later("sentence_transformers.sentence_transformer.modules", "Pooling")
nn = Later("torch.nn")

MakeModel = Callable[..., Path]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.fixture(scope="module")
def transformer(make_model: MakeModel) -> Any:
    """A small BERT as the first module."""
    first: Any = SentenceTransformer(str(make_model()), device="cpu")[0]
    return first


def saved(folder: Path, *modules: Any) -> Path:
    """Write a pipeline of `modules`; their weights are random, including those of layer norms."""
    torch.manual_seed(3)
    for module in modules[1:]:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    folder.mkdir()
    SentenceTransformer(modules=list(modules), device="cpu").save(str(folder))
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_poolings_are_the_librarys(transformer: Any, tmp_path: Path) -> None:
    """Each pooling mode, and several in their stated order, give the library's vectors."""
    together = [MODES, MODES[::-1], ["lasttoken", "mean"], ["max", "max"]]
    for index, modes in enumerate([*MODES, *together]):
        folder = saved(tmp_path / str(index), transformer, Pooling(64, modes))
        assert differences(folder, tmp_path).max() <= 1e-5, modes
        assert describe(folder).pooling == ((modes,) if isinstance(modes, str) else tuple(modes))


def test_older_flags_have_an_order_of_their_own(transformer: Any, tmp_path: Path) -> None:
    """Older pooling flags count in a fixed order; without any, pooling is by mean.

    A stated pooling_mode takes precedence over the flags.
    """
    folder = saved(tmp_path / "model", transformer, Pooling(64))
    config = folder / "1_Pooling" / "config.json"
    flags = [f"pooling_mode_{mode}" for mode in MODES if mode != "lasttoken"]
    named = [f"{flag}_tokens" if not flag.endswith("_tokens") else flag for flag in flags]
    named = [name.replace("cls_tokens", "cls_token") for name in named] + ["pooling_mode_lasttoken"]
    for on in (named[::-1], named[1::2][::-1], [], named[4:]):
        stated = dict.fromkeys(on, True) | {name: False for name in named if name not in on}
        config.write_text(json.dumps({"word_embedding_dimension": 64, **stated}))
        assert differences(folder, tmp_path).max() <= 1e-5, on
        assert len(describe(folder).pooling) == max(1, len(on))
    edit(config, pooling_mode="max")
    assert differences(folder, tmp_path).max() <= 1e-5
    config.write_text('{"word_embedding_dimension": 64}')
    assert differences(folder, tmp_path).max() <= 1e-5


def pipelines() -> dict[str, Sequence[Any]]:
    """Return modules that may follow a mean of 64 dimensions, by what they show."""
    return {
        "tanh is the default": [Dense(64, 24), Normalize()],
        "several": [Dense(64, 96, activation_function=nn.ReLU()), Dense(96, 32)],
        "no bias": [Dense(64, 32, bias=False, activation_function=nn.Identity())],
        "a residual of one size": [Dense(64, 64, use_residual=True)],
        "a residual of another size": [Dense(64, 32, use_residual=True), Normalize()],
        "a unit length in the middle": [Normalize(), Dense(64, 32)],
        "a unit length twice": [Normalize(), Normalize()],
        "nothing but dropout": [Dropout(0.5)],
        "dropout behind a unit length": [Dense(64, 32), Normalize(), Dropout(0.5)],
        "a layer norm": [LayerNorm(64), Dense(64, 32), LayerNorm(32)],
    }


def test_modules_behind_pooling_are_the_librarys(transformer: Any, tmp_path: Path) -> None:
    """Modules after the pooling, in any number and order, give the library's vectors.

    Only a normalisation at the end is left to the request.
    """
    for name, modules in pipelines().items():
        folder = saved(tmp_path / name, transformer, Pooling(64), *modules)
        assert differences(folder, tmp_path).max() <= 1e-5, name
        library = SentenceTransformer(str(folder), device="cpu")
        encoder = read_encoder(folder, describe(folder))
        assert encoder.outputs == library.get_embedding_dimension(), name
        kinds = [kind for each in modules if (kind := type(each).__name__) != "Dropout"]
        assert describe(folder).normalize == (kinds[-1:] == ["Normalize"]), name


def test_a_pipeline_is_prepared_in_fewer_bits(transformer: Any, tmp_path: Path) -> None:
    """A pipeline passes the gate in int8, and a text's bytes do not depend on earlier texts."""
    modules = [Pooling(64, MODES), Normalize(), Dense(6 * 64, 32), LayerNorm(32), Normalize()]
    folder = saved(tmp_path / "model", transformer, *modules)
    precision = Precision("int8", weight_bits=7, floor=0.99)
    output = tmp_path / "int8"
    made = prepare(PrepareRequest(folder=folder, name="tiny", precision=precision, output=output))
    assert (made.quantization, made.kept, made.dimensions) == ("int8", (), 32)
    model = load(output)
    assert model.normalize
    rows = model.tokenize(TEXTS)
    vectors = [model.forward(row).tobytes() for row in rows]
    assert [model.forward(row).tobytes() for row in reversed(rows)] == vectors[::-1]


def test_weights_that_are_no_numbers_are_named(transformer: Any, tmp_path: Path) -> None:
    """NaN in a module after the pooling is refused, too, by the tensor's name."""
    folder = saved(tmp_path / "model", transformer, Pooling(64), Dense(64, 32))
    path = folder / "2_Dense" / "model.safetensors"
    tensors = load_file(path)
    tensors["linear.bias"][3] = np.nan
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"2_Dense: tensor 'linear\.bias' holds NaN"):
        read_encoder(folder, describe(folder))


def test_activations_of_dense_are_torchs(transformer: Any, tmp_path: Path) -> None:
    """Every known activation of a Dense module, and the default, gives the library's vectors."""
    dense = Dense(64, 32)
    folder = saved(tmp_path / "model", transformer, Pooling(64, MODES[:1]), dense)
    config = folder / "2_Dense" / "config.json"
    for name in steps._ACTIVATIONS:
        edit(config, activation_function=f"torch.nn.{name}")
        assert differences(folder, tmp_path).max() <= 1e-5, name
    silent = json.loads(config.read_text())
    for key in ("activation_function", "bias", "use_residual"):
        silent.pop(key, None)
    config.write_text(json.dumps(silent))
    assert differences(folder, tmp_path).max() <= 1e-5
    for name in ("torch.nn.Softmax", "my.own.Tanh"):
        edit(config, activation_function=name)
        with pytest.raises(UnknownArchitectureError, match=rf"activation {name}"):
            read_encoder(folder, describe(folder))


def test_modules_between_other_features_are_not_ours(transformer: Any, tmp_path: Path) -> None:
    """A module that does not read and write the text's vector is left to the library."""
    folder = saved(tmp_path / "model", transformer, Pooling(64), Dense(64, 64), Normalize())
    for change in ({"module_input_name": "token_embeddings"}, {"module_output_name": "scores"}):
        for module in ("2_Dense", "3_Normalize"):
            config = folder / module / "config.json"
            before = config.read_text()
            edit(config, **change)
            with pytest.raises(UnknownArchitectureError, match=next(iter(change))):
                describe(folder)
            config.write_text(before)
    assert describe(folder).normalize


def test_weights_that_do_not_fit_are_named(transformer: Any, tmp_path: Path) -> None:
    """Weights that do not fit the config, and modules that do not fit their inputs, are named."""
    folder = saved(tmp_path / "model", transformer, Pooling(64), Dense(64, 32))
    config = folder / "2_Dense" / "config.json"
    for change in ({"bias": False}, {"in_features": 32}, {"use_residual": True}):
        before = config.read_text()
        edit(config, **change)
        with pytest.raises(ModelError, match=r"2_Dense: weights are .*linear\.bias"):
            read_encoder(folder, describe(folder))
        config.write_text(before)
    edit(folder / "1_Pooling" / "config.json", pooling_mode=["cls", "max"])
    with pytest.raises(UnknownArchitectureError, match="Dense takes 64 dimensions, but gets 128"):
        read_encoder(folder, describe(folder))


def test_a_pipeline_without_pooling_is_not_ours(transformer: Any, tmp_path: Path) -> None:
    """A list of modules without pooling is refused: no pooling is added to it."""
    folder = saved(tmp_path / "model", transformer, Pooling(64))
    path = folder / "modules.json"
    first, pooling = json.loads(path.read_text())
    path.write_text(json.dumps([first]))
    with pytest.raises(UnknownArchitectureError, match="without Pooling"):
        describe(folder)
    path.write_text(json.dumps([pooling]))
    with pytest.raises(UnknownArchitectureError, match="unsupported first module Pooling"):
        describe(folder)
    for damaged in ("[]", "{}", '[{"type": "sentence_transformers.models.Pooling"}]'):
        path.write_text(damaged)
        with pytest.raises(ModelError, match=r"modules\.json"):
            describe(folder)


def test_the_first_module_may_have_a_folder(transformer: Any, tmp_path: Path) -> None:
    """The first module may have its own folder, as older versions of the library wrote it."""
    folder = saved(tmp_path / "model", transformer, Pooling(64), Dense(64, 32))
    inside = folder / "0_Transformer"
    inside.mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).rename(inside / file)
    (folder / "sentence_bert_config.json").rename(inside / "sentence_bert_config.json")
    path = folder / "modules.json"
    first, *others = json.loads(path.read_text())
    path.write_text(json.dumps([first | {"path": "0_Transformer"}, *others]))
    assert differences(folder, tmp_path).max() <= 1e-5


def test_an_encoder_refuses_what_does_not_fit(make_model: MakeModel) -> None:
    """A head that does not fit is refused when the encoder is built, not when a text comes."""
    folder = make_model()
    encoder = read_encoder(folder, describe(folder))
    dense = OurDense(Linear(np.zeros((8, 4), np.float32), np.zeros(8, np.float32)), Activation.TANH)
    with pytest.raises(ValueError, match="Dense takes 4 dimensions, but gets 64"):
        Encoder(encoder.embeddings, encoder.layers, 4, Head((OurPooling.CLS,), (dense,)))
