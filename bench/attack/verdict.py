"""What comes of an attack's figures. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles

MOST_P99_RATIO = 2.0
MOST_LINES_A_SECOND = 10.0
MOST_SECONDS_AFTER = 1.0
# Below, a percentile is whichever request was the slowest.
LEAST_REQUESTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one attack: times in seconds, memory in bytes.

    `quiet` and `attacked` are the times of honest requests without it (or beside honest
    neighbours, where it computes) and under it, `elsewhere` while the same attack is carried out
    against another daemon of the host: what it takes of the processor. `lines` by attacking user
    is how many events were written about it a second; `left` is what was still held for the
    attackers when it was given up to wait for that.
    """

    name: str
    deeds: int
    deed: str
    broken: int
    computes: bool
    quiet: Sequence[float]
    elsewhere: Sequence[float]
    attacked: Sequence[float]
    lost: int
    wrong: int
    lost_in_quiet: int
    pings: Sequence[float]
    statuses: Sequence[float]
    unanswered: int
    lines: float
    faults: int
    ended: int
    rss: int
    ceiling: int
    descriptors: int
    after: float
    left: Sequence[str] = ()


def p50(values: Sequence[float]) -> float:
    return _percentile(values, 50)


def p99(values: Sequence[float]) -> float:
    return _percentile(values, 99)


def ratio(figures: Figures) -> float:
    """Return the honest requests' p99 under the attack, to the longer one of those without it."""
    return p99(figures.attacked) / max(p99(figures.quiet), p99(figures.elsewhere))


def failures(figures: Figures) -> Iterator[str]:
    """Yield each thing that is not as it has to be."""
    if figures.broken or not figures.deeds:
        yield f"the attack was not carried out: {figures.broken} attackers ended"
    for count, what in (
        (figures.lost, "honest requests lost"),
        (figures.lost_in_quiet, "honest requests lost before or after it"),
        (figures.wrong, "wrong vectors"),
        (figures.unanswered, "pings or statuses of root not answered"),
        (figures.faults, "faults that the daemon told of"),
        (figures.ended, "daemons that ended"),
    ):
        if count:
            yield f"{count} {what}"
    yield from _over_limits(figures)


def _over_limits(figures: Figures) -> Iterator[str]:
    times = (figures.quiet, figures.elsewhere, figures.attacked)
    if min(map(len, times)) < LEAST_REQUESTS:
        yield "too few honest requests for a p99: more --seconds, or fewer attacks"
    elif ratio(figures) > MOST_P99_RATIO:
        yield f"honest p99 {ratio(figures):.1f} times as long"
    if figures.lines > MOST_LINES_A_SECOND:
        yield f"{figures.lines:.0f} events a second about one user"
    if figures.rss > figures.ceiling:
        yield f"{figures.rss >> 20} MiB, over the ceiling of {figures.ceiling >> 20} MiB"
    if figures.left:
        yield f"{' and '.join(figures.left)} still held after {figures.after:.0f} s"
    elif figures.after > MOST_SECONDS_AFTER:
        yield f"all given back after {figures.after:.1f} s only"


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return float("nan")
    return quantiles(values, n=100, method="inclusive")[percent - 1]
