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
    tables = (_clients(figures), _daemon(figures), _starts(started))
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
        tables=[table for table in tables if table.rows],
    )


def _names(failed: Sequence[str]) -> set[str]:
    return {each.partition(":")[0] for each in failed}


def _clients(figures: Sequence[Figures]) -> Table:
    head = ("", "lost", "p50, p99, ms", "without it", "elsewhere", "p99, times", "verdict")
    title = (
        "What honest clients get under each attack, without it (*: beside honest users who "
        "compute), and while it is carried out against another daemon of the host"
    )
    return Table(title, head, [_clients_row(each) for each in figures])


def _clients_row(each: Figures) -> tuple[str, ...]:
    return (
        each.name,
        told(each.lost),
        f"{_ms(p50(each.attacked))}, {_ms(p99(each.attacked))}",
        f"{_ms(p50(each.quiet))}, {_ms(p99(each.quiet))}{' *' if each.computes else ''}",
        f"{_ms(p50(each.elsewhere))}, {_ms(p99(each.elsewhere))}",
        told(ratio(each), 3),
        "FAILED" if any(failures(each)) else "withstood",
    )


def _daemon(figures: Sequence[Figures]) -> Table:
    head = ("", "deeds", "ping, ms", "status, ms", "events/s", "MiB", "files", "given back, s")
    title = "What the daemon does meanwhile: its longest ping and status, its most memory and files"
    return Table(title, head, [_daemon_row(each) for each in figures])


def _daemon_row(each: Figures) -> tuple[str, ...]:
    return (
        each.name,
        f"{told(each.deeds)} {each.deed}",
        _ms(max(each.pings, default=float("nan"))),
        f"{_ms(max(each.statuses, default=float('nan')))} of {len(each.statuses)}",
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
