"""What visits come to, round by round: texts a second, milliseconds, closeness to FP32."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.callers import Visit
from bench.loads import LOADS, Load
from bench.report import Side

Scale: TypeAlias = Literal["texts/s", "p50, ms", "p99, ms", "worst, ms", "worst to median"]


@dataclass(frozen=True, slots=True)
class Score:
    """One visit. `cosines` are those to FP32, a text each; `asking` is the share of all
    processors' time that it took to ask, or of an encoder in this process to answer.
    """

    on: Mapping[Scale, float]
    cosines: NDArray[np.float32]
    asking: float


def score(visit: Visit, reference: NDArray[np.float32], cores: int) -> Score:
    times = 1e3 * np.array(visit.times)
    middle, worst = float(np.median(times)), float(times.max())
    return Score(
        on={
            "texts/s": len(times) / visit.seconds,
            "p50, ms": middle,
            "p99, ms": float(np.percentile(times, 99)),
            "worst, ms": worst,
            "worst to median": worst / middle,
        },
        cosines=(visit.vectors * reference).sum(axis=1),
        asking=visit.processor_seconds / (cores * visit.seconds),
    )


class Scores:
    """All scores, by contender and load."""

    def __init__(self, names: Iterable[str]) -> None:
        self._all: dict[str, dict[Load, list[Score]]] = {name: {} for name in names}

    @property
    def names(self) -> Sequence[str]:
        return list(self._all)

    def add(self, name: str, load: Load, one: Score) -> None:
        self._all[name].setdefault(load, []).append(one)

    def drop(self, name: str) -> None:
        """Forget a contender who did not come to the end."""
        del self._all[name]

    def of(self, name: str, load: Load) -> Sequence[Score]:
        """Return a score a round; none where the contender has not been measured so."""
        return self._all.get(name, {}).get(load, [])

    def side(self, name: str, load: Load, scale: Scale) -> Side | None:
        values = [each.on[scale] for each in self.of(name, load)]
        what, _, unit = scale.rpartition(", ")
        told = ", ".join(filter(None, (str(load), what)))
        return Side(f"{name}: {told}", unit, values) if values else None

    def median(self, name: str, load: Load, scale: Scale) -> float | None:
        side = self.side(name, load, scale)
        return side.median if side else None

    def sides(self) -> Iterator[Side]:
        """Yield all that was measured."""
        for name in self.names:
            for load in LOADS:
                for scale in ("texts/s", "p50, ms", "p99, ms", "worst, ms"):
                    if side := self.side(name, load, scale):
                        yield side

    def cosines(self, name: str, loads: Sequence[Load]) -> NDArray[np.float32]:
        return np.concatenate([each.cosines for load in loads for each in self.of(name, load)])
