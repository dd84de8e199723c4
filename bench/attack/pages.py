"""The verdicts as a `Result`: what honest clients had of each attack, and what the daemon."""

from collections.abc import Sequence
from statistics import median

from bench.attack.starts import Started
from bench.attack.verdict import (
    MOST_LINES_A_SECOND,
    MOST_P99_RATIO,
    MOST_SECONDS_AFTER,
    Figures,
    failures,
    p50,
    p99,
    ratio,
)
from bench.report import Result, Table, told


def page(figures: Sequence[Figures], started: Sequence[Started], *, seed: int) -> Result:
    """Return the page; `failed` names each attack with what it has brought about."""
    failed = [f"{each.name}: {what}" for each in figures for what in failures(each)]
    failed += [f"{each.name}: {each.failure}" for each in started if each.failure]
    ratios = [ratio(each) for each in figures]
    return Result(
        title="Attacks by other users",
        sides=[],
        figures={
            "attacks": len(figures) + len(started),
            "attacks withstood": len(figures) + len(started) - len(_names(failed)),
            "honest requests under attack": sum(len(each.attacked) for each in figures),
            "honest requests without": sum(len(each.quiet) for each in figures),
            "honest requests lost": sum(each.lost for each in figures),
            "lost between attacks": sum(each.lost_in_quiet for each in figures),
            "wrong vectors": sum(each.wrong for each in figures),
            "p99 to that without attack, median of the attacks": median(ratios or [0]),
            "the same, limit": MOST_P99_RATIO,
            "events a second about a user, limit": MOST_LINES_A_SECOND,
            "seconds until all is given back, limit": MOST_SECONDS_AFTER,
            "seed": seed,
        },
        failed=failed,
        tables=[table for table in (_clients(figures), _daemon(figures), _starts(started)) if table.rows],
    )  # fmt: skip


def _names(failed: Sequence[str]) -> set[str]:
    return {each.partition(":")[0] for each in failed}


def _clients(figures: Sequence[Figures]) -> Table:
    head = (
        "", "deeds", "requests", "lost", "p50, ms", "p99, ms", "without: requests", "p50, ms",
        "p99, ms", "p99 to that", "verdict",
    )  # fmt: skip
    return Table("What honest clients get", head, [_clients_row(each) for each in figures])


def _clients_row(each: Figures) -> tuple[str, ...]:
    return (
        each.name,
        f"{told(each.deeds)} {each.deed}",
        told(len(each.attacked)),
        told(each.lost),
        _ms(p50(each.attacked)),
        _ms(p99(each.attacked)),
        told(len(each.quiet)) + (" *" if each.computes else ""),
        _ms(p50(each.quiet)),
        _ms(p99(each.quiet)),
        told(ratio(each), 3),
        "FAILED" if any(failures(each)) else "withstood",
    )


def _daemon(figures: Sequence[Figures]) -> Table:
    head = (
        "", "longest ping, ms", "statuses", "longest, ms", "no answer", "events/s", "peak RSS, MiB",
        "descriptors", "given back, s",
    )  # fmt: skip
    title = "What the daemon does meanwhile; * beside honest neighbours who compute"
    return Table(title, head, [_daemon_row(each) for each in figures])


def _daemon_row(each: Figures) -> tuple[str, ...]:
    return (
        each.name,
        _ms(max(each.pings, default=float("nan"))),
        told(len(each.statuses)),
        _ms(max(each.statuses, default=float("nan"))),
        told(each.unanswered),
        told(each.lines, 3),
        told(each.rss >> 20),
        told(each.descriptors),
        "not" if each.left else told(each.after, 2),
    )


def _starts(started: Sequence[Started]) -> Table:
    rows = [(each.name, told(each.seconds, 3), each.failure or "withstood") for each in started]
    return Table("A daemon that starts again", ("", "seconds", "verdict"), rows)


def _ms(seconds: float) -> str:
    return told(1e3 * seconds, 3)
