"""The precision that models came out in, against what was configured."""

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
    """With the kernel and the bytes, before and after."""
    (finding,) = check_quantization(GOOD, configured)
    assert finding.severity is Severity.OK
    assert "90.0 MB -> 23.0 MB" in finding.found


@pytest.mark.parametrize(
    ("served", "configured", "found"),
    [
        (replace(GOOD, quantization="none"), "int8", "stays under 0.995"),
        (replace(GOOD, quantization="none", fell_back="not finite"), "fp16", "not finite"),
        (GOOD, "int4", "not int4"),
        (
            replace(GOOD, quantization="none", requested=None, kernel="by sentence-transformers"),
            "int8",
            "no graph computes it",
        ),
    ],
)
def test_what_was_not(served: Served, configured: str, found: str) -> None:
    """Under the floor, other settings than the daemon's, or a model outside the families."""
    (finding,) = check_quantization(served, configured)
    assert finding.severity is Severity.WARNING
    assert found in finding.found
    assert finding.advice


def test_layers_that_stayed_are_named() -> None:
    """Quantized, but not throughout."""
    _, finding = check_quantization(replace(GOOD, kept=("layer.5.up",)), "int8")
    assert finding.severity is Severity.NOTE
    assert "layer.5.up" in finding.found


@pytest.mark.parametrize(
    ("served", "severity"),
    [
        (GOOD, Severity.OK),
        (replace(GOOD, quantization="none", mean=None), Severity.OK),
        (replace(GOOD, mean=0.99), Severity.WARNING),
        (replace(GOOD, mean=None), Severity.WARNING),
        (replace(GOOD, least=0.7), Severity.NOTE),
        (replace(GOOD, rank_agreement=0.9), Severity.NOTE),
    ],
)
def test_closeness_to_fp32(served: Served, severity: Severity) -> None:
    """In the mean against the floor, at worst, and never measured."""
    (finding,) = check_accuracy(served)
    assert finding.severity is severity


def test_it_reads_what_a_status_tells() -> None:
    """Of an artifact's model and of torch's, which tells less."""
    told = {"name": "m", "quantization": "int8", "quality": {"mean": 0.9, "min": 0.8}, "kept": []}
    assert Served.of(told, 0.995).mean == 0.9
    assert Served.of({"name": "m", "quantization": "none"}, 0.995).mean is None


def test_a_proof_is_told() -> None:
    """A model that was proven equal to the library is named with the library's version."""
    told = {
        "name": "m",
        "quantization": "int8",
        "verified": {"versions": {"sentence-transformers": "6.2"}},
    }
    (finding,) = check_verified(Served.of(told, floor=0.995))
    assert finding.severity is Severity.OK
    assert "sentence-transformers 6.2" in finding.found


@pytest.mark.parametrize("told", [{}, {"verified": None}])
def test_an_unverified_model_is_a_warning_with_the_command(told: dict[str, None]) -> None:
    """Without a proof the advice is the command that makes one."""
    (finding,) = check_verified(Served.of({"name": "m", "quantization": "int8", **told}, 0.995))
    assert finding.severity is Severity.WARNING
    assert "unverified" in finding.found
    assert "sidecar verify m" in finding.advice


def test_prompts_that_are_missing() -> None:
    """With the setting that brings them; a model that lacks nothing is not spoken of."""
    (finding,) = check_prompts("e5-small-v2", ["query"])
    assert finding.severity is Severity.WARNING
    assert finding.found.startswith("e5-small-v2: nothing goes before queries")
    assert finding.advice.startswith("SIDECAR_PROMPTS=auto")
    assert list(check_prompts("e5-small-v2", [])) == []
