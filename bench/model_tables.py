"""The tables, charts and figures of `python -m bench models`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from bench.report import Chart, Point, Result, Side, Table, point, spread
from sidecar.models.manifest import Quality

TODAY = "sentence-transformers FP32"
"""The side that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """MB: of the weights as they are stored, and in a process; of a process of the model's own.

    `resident` is None where nobody knows what of a process are weights; `quality` for FP32, and
    for random weights.
    """

    stored: float
    resident: Side | None
    pss: Side
    rss: Side
    quality: Quality | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was measured of a model, by side; `latency` by length as well, in tokens.

    `fp32` are the MB of its weights in FP32; `kept` is how many layers a side left in FP32.
    """

    name: str
    fp32: float
    memory: Mapping[str, Memory]
    latency: Mapping[int, Mapping[str, Side]]
    kept: Mapping[str, int]

    def times_as_fast(self, side: str, tokens: int) -> float:
        """Return how many times as fast a side is as `TODAY`."""
        return self.latency[tokens][TODAY].median / self.latency[tokens][side].median


def result(studies: Sequence[Study], missing: Mapping[str, str]) -> Result:
    """Return `studies` as they are shown; `missing` are models that were left out, and why."""
    return Result(
        title="Models by precision, and what users have today",
        sides=[side for study in studies for side in _sides(study)],
        figures=dict(figure for study in studies for figure in _figures(study)),
        skipped=missing,
        tables=[_memory_table(studies), *map(_latency_table, studies)] if studies else (),
        charts=[*_memory_charts(studies), *map(_latency_chart, studies)] if studies else (),
    )


def _sides(study: Study) -> Iterator[Side]:
    for memory in study.memory.values():
        yield from (s for s in (memory.resident, memory.pss, memory.rss) if s is not None)
    for sides in study.latency.values():
        yield from sides.values()


def _figures(study: Study) -> Iterator[tuple[str, float]]:
    for name, memory in study.memory.items():
        if name == TODAY:
            continue
        yield f"{study.name}, {name}: weights stored, of FP32", memory.stored / study.fp32
        if memory.resident:
            in_memory = memory.resident.median / study.fp32
            yield f"{study.name}, {name}: weights in memory, of FP32", in_memory
        factors = [study.times_as_fast(name, tokens) for tokens in study.latency]
        if factors:
            yield f"{study.name}, {name}: times as fast, all lengths", geometric_mean(factors)
        if memory.quality:
            yield f"{study.name}, {name}: closeness to FP32, mean", memory.quality.mean
    for name, count in study.kept.items():
        yield f"{study.name}, {name}: layers left in FP32", count


def _memory_table(studies: Sequence[Study]) -> Table:
    head = (
        "model",
        "in",
        "weights stored, MB (of FP32)",
        "weights in memory, MB (of FP32)",
        f"process, PSS, MB (of {TODAY})",
        "process, RSS, MB",
        "closeness to FP32",
    )
    rows = [
        (study.name, name, *_memory_cells(study, memory))
        for study in studies
        for name, memory in study.memory.items()
    ]
    return Table("Memory: a process with one model, warm", head, rows)


def _memory_cells(study: Study, memory: Memory) -> Iterator[str]:
    yield f"{memory.stored:.1f} ({memory.stored / study.fp32:.1%})"
    in_memory = memory.resident.median if memory.resident else None
    yield "" if in_memory is None else f"{in_memory:.1f} ({in_memory / study.fp32:.1%})"
    yield f"{memory.pss.median:.0f} ({memory.pss.median / study.memory[TODAY].pss.median:.0%})"
    yield f"{memory.rss.median:.0f}"
    yield _told(memory.quality)


def _told(quality: Quality | None) -> str:
    if quality is None:
        return ""
    if quality.rank_agreement is None:
        return f"cosine {quality.mean:.4f}"
    return f"score {quality.mean:.4f}, order {quality.rank_agreement:.1%}"


def _latency_table(study: Study) -> Table:
    sides = list(study.memory)
    rows = [
        (str(tokens), *(_latency_cell(study, name, tokens) for name in sides))
        for tokens in study.latency
    ]
    title = f"{study.name}: a batch of 16 texts, ms (x: as fast as {TODAY})"
    return Table(title, ("tokens a text", *sides), rows)


def _latency_cell(study: Study, name: str, tokens: int) -> str:
    told = spread(study.latency[tokens][name])
    return told if name == TODAY else f"{told}: {study.times_as_fast(name, tokens):.2f} x"


def _memory_charts(studies: Sequence[Study]) -> Iterator[Chart]:
    yield Chart(
        name="weights",
        title="Weights as they are stored",
        about="How many megabytes each model's weights have, in each precision.",
        x="model",
        y="MB",
        series=_bars(studies, lambda memory: Side("", "MB", [memory.stored])),
    )
    yield Chart(
        name="process",
        title="A process with one model, warm",
        about="How many megabytes of its own (PSS) a process takes that has just that model.",
        x="model",
        y="PSS, MB",
        series=_bars(studies, lambda memory: memory.pss),
    )


def _bars(studies: Sequence[Study], value: Callable[[Memory], Side]) -> dict[str, Sequence[Point]]:
    return {
        name: [point(study.name, value(study.memory[name])) for study in studies]
        for name in studies[0].memory
    }


def _latency_chart(study: Study) -> Chart:
    return Chart(
        name=f"latency-{study.name.partition(' ')[0]}",
        title=f"{study.name}: a batch of 16 texts",
        about=f"How long a batch of 16 texts takes {study.name}, by their length, on each side.",
        x="tokens a text",
        y="ms",
        series={
            name: [point(tokens, sides[name]) for tokens, sides in study.latency.items()]
            for name in study.memory
        },
        log_x=True,
        log_y=True,
    )
