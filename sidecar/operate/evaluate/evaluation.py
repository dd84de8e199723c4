"""What judging a model found: its precisions, and each one's figures beside those of FP32."""

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
    """A figure less that of FP32, and between what it lies in 95 % of all draws.

    `relative` is its share of FP32's figure; None where that is not above 0.
    """

    value: float
    low: float
    high: float
    relative: float | None

    @property
    def within_noise(self) -> bool:
        """Whether these data cannot tell the two sides apart."""
        return self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """What may be said of it, in words."""
        if self.within_noise:
            return "within noise"
        return "better" if self.low > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value, and its difference to FP32's; None for FP32 itself."""

    metric: str
    value: float
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan came to on one set of data; `closeness` is None for FP32 itself."""

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
    """One set of data, how much there is of it, and each plan's outcome, that of FP32 first."""

    name: str
    about: str
    task: Task
    outcomes: tuple[Outcome, ...]

    @property
    def exact(self) -> Outcome:
        """What FP32 came to."""
        return self.outcomes[0]

    @property
    def compared(self) -> tuple[Outcome, ...]:
        """What the other plans came to."""
        return self.outcomes[1:]


@dataclass(frozen=True, slots=True)
class Served:
    """What a plan came out in, which may be FP32 in part or in whole.

    `weight_bits` are those of int8's weights, 7 or 8 by the processor; None for all else.
    `kept_in_fp32` names the Linear layers that a quantization left as they were.
    """

    quantization: str
    weight_bits: int | None
    kernel: str
    bytes_weights: int
    kept_in_fp32: tuple[str, ...]

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Served":
        """Return what a model tells of itself."""
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
    """All that was judged of a model: by plan what it came out in, by data what it came to.

    `processor` is what computed it; a quantization is made for one.
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
    told = {**asdict(found), "within_noise": found.within_noise}
    return {"value": figure.value, "difference": told}
