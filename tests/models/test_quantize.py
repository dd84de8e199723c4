"""The quality gate: which layers return to FP32, what decides it, and what is calibrated on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sidecar.encoder.int4 import Int4Linear
from sidecar.encoder.int8 import Int8Linear
from sidecar.models import prepare as preparing
from sidecar.models import quantize
from sidecar.models.errors import ModelError
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.models.manifest import Quality
from sidecar.models.precision import Precision
from sidecar.models.prepare import prepare
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.quantize import quantized
from sidecar.models.rows import Row

MakeModel = Callable[..., Path]
LAYERS = [
    f"layer.{number}.{part}"
    for number in range(2)
    for part in ("qkv", "attention_output", "up", "down")
]
# Neither in the order of the layers nor in reverse.
ERRORS = dict(zip(LAYERS, (0.3, 0.8, 0.1, 0.5, 0.7, 0.2, 0.6, 0.4), strict=True))


@pytest.fixture(autouse=True)
def quick_preparation() -> None:
    """Override the shared fixture: nothing is shortened here."""


@pytest.fixture(scope="module")
def encoder(make_model: MakeModel) -> Any:
    folder = make_model()
    return read_encoder(folder, describe(folder))


def row(tokens: int, seed: int = 0) -> Row:
    ids = np.random.default_rng(seed).integers(5, 90, tokens)
    return Row(ids, np.zeros_like(ids), truncated=False)


def quality(mean: float, low: float | None = None) -> Quality:
    low = mean if low is None else low
    return Quality(mean=mean, p1=low, min=low, texts=1)


class Gate:
    """A model's quality gate, with its steps and the layers that are quantized at each of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.quantized: list[Mapping[str, Any]] = []
        recipe = quantize.QuantizedRecipe

        def recorded(linears: Mapping[str, Any], tables: Mapping[str, Any]) -> Any:
            self.quantized.append(dict(linears))
            self.tables = tables
            return recipe(linears, tables)

        monkeypatch.setattr(quantize, "QuantizedRecipe", recorded)

    def passed(
        self, encoder: Any, qualities: Sequence[Quality], quantization: str = "int8", bits: int = 7
    ) -> quantize.Quantized:
        answers = iter(qualities)
        return quantized(
            encoder,
            [row(20, seed) for seed in range(3)],
            Precision(quantization, weight_bits=bits, floor=0.9),
            lambda _: next(answers),
            lambda *step: self.steps.append(step),
        )


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def known_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each layer's own error be the one in `ERRORS`."""
    order = iter(LAYERS)
    monkeypatch.setattr(quantize, "output_error", lambda *_: ERRORS[next(order)])


@pytest.mark.usefixtures("known_errors")
def test_the_worst_layers_go_back_first(encoder: Any, gate: Gate) -> None:
    """The layers with the largest errors return to FP32 first, until the mean is at the floor."""
    worst_first = sorted(LAYERS, key=lambda name: -ERRORS[name])
    made = gate.passed(encoder, [quality(0.7), quality(0.8), quality(0.89999), quality(0.9)])
    assert made.kept == tuple(worst_first[:3])
    assert (made.quantization, made.layers, made.quality) == ("int8", 2, quality(0.9))
    assert [set(each) for each in gate.quantized] == [
        set(worst_first), set(worst_first[1:]), set(worst_first[2:]), set(worst_first[3:]),
    ]  # fmt: skip
    compared = [step[1:] for step in gate.steps if step[0] == "comparing with FP32"]
    assert compared == [(number, 9) for number in range(1, 5)]
    assert [step[1:] for step in gate.steps if step[0] == "quantizing"][-1] == (2, 2)


@pytest.mark.usefixtures("known_errors")
def test_the_mean_decides_and_not_the_worst_text(encoder: Any, gate: Gate) -> None:
    """The mean decides: one bad text keeps no layer in FP32."""
    made = gate.passed(encoder, [quality(0.95, low=0.1)])
    assert made.kept == ()
    assert made.kernel == "onnxruntime MatMulIntegerToFloat, u8 activations x s8 weights"


@pytest.mark.usefixtures("known_errors")
def test_where_nothing_passes_it_is_fp32_and_says_what_was_tried(encoder: Any, gate: Gate) -> None:
    """If not even quantized tables alone pass, FP32 serves and names the layers that were tried."""
    made = gate.passed(encoder, [quality(0.89)] * 9)
    assert (made.quantization, made.quality) == ("none", None)
    assert made.kept == tuple(sorted(LAYERS, key=lambda name: -ERRORS[name]))
    assert gate.quantized[-1] == {}
    assert len(gate.quantized) == 9
    assert made.kernel == "onnxruntime MatMul, fp32"


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_have_the_bits_that_are_asked_for(encoder: Any, gate: Gate, bits: int) -> None:
    """Weights have the requested bits: 7 let two neighbouring products fit into 16 bits."""
    gate.passed(encoder, [quality(1)], bits=bits)
    (linears,) = gate.quantized
    assert set(linears) == set(LAYERS)
    for name, linear in linears.items():
        pairs = linear.rows.astype(int).reshape(-1, 2)
        largest = max(pairs.clip(0).sum(1).max(), (-pairs).clip(0).sum(1).max())
        assert (255 * largest <= 2**15) == (bits == 7), name
    assert set(gate.tables) == {"word", "position"}


def test_the_last_layers_of_four_bits_are_in_eight(
    encoder: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With int4, the last layers have 8 bits: few layers follow to even out their errors."""
    monkeypatch.setattr(quantize, "_layers_in_eight_bits", lambda _: 1)
    made = gate.passed(encoder, [quality(1)], quantization="int4")
    assert (made.quantization, made.kept) == ("int4", ())
    assert made.kernel.endswith("s8 weights unpacked from 4 bits")
    (linears,) = gate.quantized
    kinds = {name: type(linear) for name, linear in linears.items()}
    assert kinds == {name: Int4Linear if "layer.0." in name else Int8Linear for name in LAYERS}


def _sized(table: int, layers: Sequence[int]) -> Any:
    """Return a stand-in for an encoder with these numbers of weights."""

    def part(size: int) -> Any:
        return SimpleNamespace(weight=np.broadcast_to(np.float32(0), size))

    parts = ("query_key_value", "attention_output", "up", "down")
    return SimpleNamespace(
        embeddings=SimpleNamespace(word=np.broadcast_to(np.float32(0), table)),
        layers=[SimpleNamespace(**{name: part(size // 4) for name in parts}) for size in layers],
    )


def test_as_many_layers_have_eight_bits_as_the_bytes_bear() -> None:
    """With int4, as many layers have 8 bits as fit into 14.85 % of FP32's bytes, but at least one.

    Per weight, FP32 takes 4 bytes, 4 bits take 0.53 and 8 bits 1.01.
    """
    for table, layers in (
        (0, [400] * 12), (0, [400] * 24), (9_000, [400] * 12), (100, [400] * 40),
        (0, [800, 400, 400, 400, 1200, 400, 400]), (0, [4000] + [400] * 30),
    ):  # fmt: skip
        total = table + sum(layers)
        fitting = [
            count
            for count in range(1, len(layers) + 1)
            if 0.53 * (total - sum(layers[-count:])) + 1.01 * sum(layers[-count:])
            <= 0.1485 * 4 * total
        ]
        expected = max(fitting, default=1)
        assert quantize._layers_in_eight_bits(_sized(table, layers)) == expected, (table, layers)
    assert quantize._layers_in_eight_bits(_sized(0, [400] * 40)) == 5


class StopError(Exception):
    """Ends the work once a test has seen enough."""


def test_texts_of_all_places_are_calibrated_on(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration uses texts with about 12,288 tokens, evenly from first to last, or all texts."""
    seen: list[list[int]] = []

    def stop(_: Any, texts: Sequence[Any]) -> Iterator[Any]:
        for ids, types in texts:
            assert ids.shape == types.shape == (1, ids.size)
        seen.append([int(ids[0, 0]) for ids, _ in texts])
        raise StopError

    monkeypatch.setattr(quantize, "observe", stop)
    for count, tokens, expected in (
        (100, 512, list(np.linspace(0, 99, 24).astype(int))), (20, 100, list(range(20))),
        (3, 12_288, [0]), (4, 6_144, [0, 3]),
    ):  # fmt: skip
        ids = [np.full(tokens, number) for number in range(count)]
        rows = [Row(each, np.zeros_like(each), truncated=False) for each in ids]
        with pytest.raises(StopError):
            quantized(encoder, rows, Precision("int8", 7, 0), lambda _: quality(1), lambda *_: None)
        assert seen.pop() == expected


@pytest.mark.parametrize("texts", [(), ("one text", "and another one " * 9)])
def test_a_users_own_texts_are_calibrated_on(
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    texts: tuple[str, ...],
) -> None:
    """Calibration uses a user's own texts or else the built-in ones, never those of the probes."""
    from sidecar.models.oracle import ask
    from sidecar.models.probes import calibration_inputs
    from sidecar.models.tokenizer import Tokenizer

    monkeypatch.setattr(ask, "has_library", lambda: False)
    seen: list[Row] = []

    def stop(_: Any, rows: Sequence[Row], *__: Any) -> None:
        seen.extend(rows)
        raise ModelError("enough")

    monkeypatch.setattr(preparing, "quantized", stop)
    folder = make_model()
    order = PrepareRequest(
        folder=folder, name="t", precision=Precision("int8", 7, 0), output=tmp_path / "out",
        texts=texts,
    )  # fmt: skip
    with pytest.raises(ModelError, match="enough"):
        prepare(order)
    tokenizer = Tokenizer(folder / "tokenizer.json", describe(folder).max_tokens)
    expected = tokenizer.rows(texts or calibration_inputs("embed"))
    assert [each.digest for each in seen] == [each.digest for each in expected]
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_not_prepared_through_a_link(tmp_path: Path) -> None:
    """An artifact is not prepared through a symbolic link; the link and its target stay."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    order = PrepareRequest(
        folder=tmp_path, name="t", precision=Precision("none", 7, 0), output=tmp_path / "out"
    )
    with pytest.raises(ModelError, match="is a symbolic link: name the folder"):
        prepare(order)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "mine" / "manifest.json").read_text() == "{}"


def test_drafts_of_the_killed_are_swept_before_another(tmp_path: Path) -> None:
    """Drafts left by killed processes are swept, even if preparing then fails."""
    (tmp_path / ".out.draft-0123456789abcdef").mkdir()
    (tmp_path / "model").mkdir()
    order = PrepareRequest(
        folder=tmp_path / "model", name="t", precision=Precision("none", 7, 0),
        output=tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(ModelError, match="is not a model folder"):
        prepare(order)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
