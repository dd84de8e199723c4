"""The result of an evaluation: each precision's figures, beside those of FP32."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sidecar.models.description import Task
from sidecar.models.manifest import Quality

REFERENCE = "none"
"""The plan that the others are compared with: FP32."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure minus that of FP32, and the interval that holds it in 95 % of all draws.

    `relative` is the difference as a share of FP32's figure; None if that is not above 0.
    """

    value: float
    low: float
    high: float
    relative: float | None

    @property
    def within_noise(self) -> bool:
        """Whether the interval includes 0: these data cannot tell the two sides apart."""
        return self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.within_noise:
            return "within noise"
        return "better" if self.low > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value, and its difference from FP32's; None for FP32 itself."""

    metric: str
    value: float
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan's results on one data set; `closeness` is None for FP32 itself."""

    plan: str
    figures: tuple[Figure, ...]
    closeness: Quality | None

    def as_map(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "closeness": asdict(self.closeness) if self.closeness else None,
            "metrics": {figure.metric: _figure(figure) for figure in self.figures},
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """One data set, its size in words, and each plan's outcome, FP32's first."""

    name: str
    about: str
    task: Task
    outcomes: tuple[Outcome, ...]

    @property
    def exact(self) -> Outcome:
        """The outcome of FP32."""
        return self.outcomes[0]

    @property
    def compared(self) -> tuple[Outcome, ...]:
        """The outcomes of the other plans."""
        return self.outcomes[1:]


@dataclass(frozen=True, slots=True)
class Served:
    """What a plan is served in, which may be FP32 in part or as a whole.

    `weight_bits` is the width of int8's weights, 7 or 8 depending on the processor; None otherwise.
    `kept_in_fp32` names the Linear layers that were not quantized.
    """

    quantization: str
    weight_bits: int | None
    kernel: str
    bytes_weights: int
    kept_in_fp32: tuple[str, ...]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Served":
        """Return what a model reports about itself."""
        quantization = described["quantization"]
        return cls(
            quantization,
            described["weight_bits"] if quantization == "int8" else None,
            described["kernel"],
            described["bytes_weights"],
            tuple(described.get("kept", ())),
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured of a model: what each plan is served in, and the results per data set.

    `processor` is the one that computed it; a quantization is made for one.
    """

    model: str
    source: Path
    processor: str
    plans: Mapping[str, Served]
    judged: Sequence[Judged]

    def as_map(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "model": self.model,
            "source": str(self.source),
            "processor": self.processor,
            "plans": {plan: asdict(served) for plan, served in self.plans.items()},
            "data": [
                {
                    "name": each.name,
                    "about": each.about,
                    "plans": {outcome.plan: outcome.as_map() for outcome in each.outcomes},
                }
                for each in self.judged
            ],
        }


def _figure(figure: Figure) -> dict[str, Any]:
    found = figure.difference
    if found is None:
        return {"value": figure.value}
    difference = {**asdict(found), "within_noise": found.within_noise}
    return {"value": figure.value, "difference": difference}
