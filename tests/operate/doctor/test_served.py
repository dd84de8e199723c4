"""The precision in which models are served, against what was configured."""

from dataclasses import replace

import pytest

from sidecar.operate.doctor.finding import Severity
from sidecar.operate.doctor.served import (
    Served,
    check_accuracy,
    check_prompts,
    check_quantization,
    check_verified,
)

GOOD = Served(
    name="m", quantization="int8", requested="int8", floor=0.995, kernel="MatMulIntegerToFloat",
    mean=0.999, least=0.994, bytes_fp32=90_000_000, bytes_weights=23_000_000,
)  # fmt: skip


@pytest.mark.parametrize("configured", ["int8", "auto"])
def test_what_was_configured(configured: str) -> None:
    """A model in the configured quantization is OK, with its kernel and its sizes."""
    (finding,) = check_quantization(GOOD, configured)
    assert finding.severity is Severity.OK
    said = "m is in int8 (MatMulIntegerToFloat), 90.0 MB -> 23.0 MB, as configured"
    assert finding.found == said
    (finding,) = check_quantization(replace(GOOD, bytes_fp32=0), configured)
    assert finding.found == "m is in int8 (MatMulIntegerToFloat), as configured"


@pytest.mark.parametrize(
    ("served", "configured", "found", "advice"),
    [
        (
            replace(GOOD, quantization="none"),
            "int8",
            "int8 in all layers stays below the floor 0.995",
            "--calibration FILE",
        ),
        (
            replace(GOOD, quantization="none", fell_back="not finite"),
            "fp16",
            "not fp16: not finite",
            "--calibration FILE",
        ),
        (GOOD, "int4", "not int4", "restart or reload the daemon"),
        (replace(GOOD, kernel=""), "none", "not none", "restart or reload the daemon"),
        (
            replace(GOOD, quantization="none", requested=None, kernel="by sentence-transformers"),
            "int8",
            "there is no graph for it",
            "only known families",
        ),
    ],
)
def test_what_was_not(served: Served, configured: str, found: str, advice: str) -> None:
    """A model in another quantization is a warning that says why and what to do."""
    (finding,) = check_quantization(served, configured)
    assert finding.severity is Severity.WARNING
    assert finding.found.startswith(f"m is in {served.quantization} ({served.kernel})")
    assert found in finding.found
    assert advice in finding.advice


def test_layers_that_stayed_are_named() -> None:
    """Layers that stayed in FP32 are named in a note of their own."""
    for configured, severity in (("int8", Severity.OK), ("int4", Severity.WARNING)):
        kept = replace(GOOD, kept=("layer.5.up", "layer.6.up"))
        judged, finding = check_quantization(kept, configured)
        assert judged.severity is severity
        assert finding.severity is Severity.NOTE
        assert finding.found == "m: 2 layers stayed in FP32: layer.5.up, layer.6.up"
        assert "calibrating on texts like yours" in finding.advice


@pytest.mark.parametrize(
    ("served", "severity"),
    [
        (replace(GOOD, mean=0.995), Severity.OK),
        (replace(GOOD, mean=0.9949), Severity.WARNING),
        (replace(GOOD, mean=0.9949, floor=0.99), Severity.OK),
        (replace(GOOD, mean=0.0), Severity.WARNING),
        (replace(GOOD, least=0.9), Severity.OK),
        (replace(GOOD, least=0.8999), Severity.NOTE),
        (replace(GOOD, least=None), Severity.WARNING),
        (replace(GOOD, rank_agreement=0.95), Severity.OK),
        (replace(GOOD, rank_agreement=0.9499), Severity.NOTE),
        (replace(GOOD, mean=0.9, least=0.7), Severity.WARNING),
        (GOOD, Severity.OK),
        (replace(GOOD, quantization="none", mean=None), Severity.OK),
        (replace(GOOD, mean=0.99), Severity.WARNING),
        (replace(GOOD, mean=None), Severity.WARNING),
        (replace(GOOD, least=0.7), Severity.NOTE),
        (replace(GOOD, rank_agreement=0.9), Severity.NOTE),
        (replace(GOOD, rank_agreement=0.0), Severity.NOTE),
    ],
)
def test_closeness_to_fp32(served: Served, severity: Severity) -> None:
    """A low mean, or none, is a warning; a low minimum or rank agreement is a note."""
    (finding,) = check_accuracy(served)
    assert finding.severity is severity
    assert bool(finding.advice) == (severity is not Severity.OK)


def test_closeness_is_told_with_the_floor() -> None:
    """The finding on closeness shows the mean, the worst and the floor, and the advice follows."""
    (finding,) = check_accuracy(GOOD)
    assert finding.found == (
        "m: closeness to FP32 on the built-in probes: mean 0.9990, worst 0.9940; floor 0.995"
    )
    (finding,) = check_accuracy(replace(GOOD, quantization="none"))
    assert finding.found == "m computes in FP32"
    (finding,) = check_accuracy(replace(GOOD, mean=0.9))
    assert finding.advice.startswith("prepare it again, which keeps layers in FP32")
    (finding,) = check_accuracy(replace(GOOD, least=0.7))
    assert finding.advice.startswith("measure your own task")
    (finding,) = check_accuracy(replace(GOOD, mean=None))
    assert finding.found == "m was never compared with FP32"
    assert finding.advice == "prepare it again with `sidecar prepare`"


def test_it_reads_what_a_status_tells() -> None:
    """A served model is read from a status entry, also from one with few fields."""
    told = {
        "name": "m", "quantization": "int8", "requested": "int4", "kernel": "k", "kept": ["a"],
        "quality": {"mean": 0.9, "min": 0.8, "p1": 0.85, "rank_agreement": 0.7},
        "bytes_fp32": 9, "bytes_weights": 3, "fell_back": "not finite",
        "verified": {"versions": {"sentence-transformers": "6.2"}},
    }  # fmt: skip
    assert Served.of(told, 0.97) == Served(
        name="m", quantization="int8", floor=0.97, requested="int4", kernel="k", kept=("a",),
        mean=0.9, least=0.8, rank_agreement=0.7, bytes_fp32=9, bytes_weights=3,
        fell_back="not finite", verified_by="6.2",
    )  # fmt: skip
    little = {"name": "m", "quantization": "none", "quality": None, "bytes_fp32": None}
    assert Served.of(little, 0.995) == Served(name="m", quantization="none", floor=0.995)


def test_a_proof_is_told() -> None:
    """A proven model is OK, and the finding names the library's version."""
    told = {
        "name": "m",
        "quantization": "int8",
        "verified": {"versions": {"sentence-transformers": "6.2"}},
    }
    (finding,) = check_verified(Served.of(told, floor=0.995))
    assert finding.severity is Severity.OK
    assert finding.found == (
        "m matches sentence-transformers 6.2 in FP32, in token ids and outputs"
    )


@pytest.mark.parametrize("told", [{}, {"verified": None}])
def test_an_unverified_model_is_a_warning_with_the_command(told: dict[str, None]) -> None:
    """An unproven model is a warning, with the command that verifies it."""
    (finding,) = check_verified(Served.of({"name": "m", "quantization": "int8", **told}, 0.995))
    assert finding.severity is Severity.WARNING
    assert "unverified" in finding.found
    assert "sidecar verify m" in finding.advice


def test_prompts_that_are_missing() -> None:
    """Missing prompts are a warning, with the setting that adds them."""
    (finding,) = check_prompts("e5-small-v2", ["query"])
    assert finding.severity is Severity.WARNING
    assert finding.found.startswith("e5-small-v2: no prompt goes before queries")
    assert finding.advice.startswith("SIDECAR_PROMPTS=auto")
    assert list(check_prompts("e5-small-v2", [])) == []
