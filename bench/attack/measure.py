"""The whole of `python -m bench faults --attack`: a load, a daemon, attacks, a page of verdicts."""

import argparse
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench import subject
from bench.attack.honest import Asked, Honest, write_pairs
from bench.attack.kinds import BESIDE, ON_STARTS
from bench.attack.pages import page
from bench.attack.phases import Attacked, Phases
from bench.attack.starts import restarted
from bench.attack.users import need_root
from bench.attack.verdict import Figures
from bench.manager import Manager
from bench.report import Result
from bench.subject import Subject

NAMES = (*BESIDE, *ON_STARTS)
_CLIENTS = 8
_RATE = 15.0  # requests a second of each, in all a fraction of what two cores can
_DESCRIPTORS = 1_024  # as a service has by default
_CEILING = 384 * 2**20
_FOLDER, _SOCKET = 0o755, 0o666  # all may reach the daemon


def measure(names: Sequence[str], *, seconds: float, seed: int) -> Result:
    """Attack for so many seconds in all, by the attacks `names` in turn.

    The model is the tiny one: the less a request takes by itself, the more its waiting shows.
    """
    need_root()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, most))  # the daemon inherits it
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        place = Path(name)
        place.chmod(_FOLDER)
        load = subject.make(argparse.Namespace(tiny=True, texts=256, seed=seed), place)
        flags = ("--embedding-model", str(load.artifact), "--device", "cpu")
        flags += ("--max-memory-bytes", str(_CEILING))
        beside = [each for each in names if each in BESIDE]
        (another := place / "another").mkdir(_FOLDER)
        managers = Manager(place, *flags), Manager(another, *flags)
        figures = _beside(beside, seconds, seed, load, managers) if beside else []
        started = [
            restarted(each, place / f"start-{index}", seed, *flags)
            for index, each in enumerate(each for each in names if each in ON_STARTS)
        ]
    return page(figures, started, seed=seed)


def _beside(
    names: Sequence[str], seconds: float, seed: int, load: Subject, managers: Sequence[Manager]
) -> list[Figures]:
    manager, another = managers
    pairs = manager.socket.with_name("pairs")
    write_pairs(pairs, load.texts, load.vectors)
    with manager, another:
        for each in (manager, another):
            each.socket.chmod(_SOCKET)
        honest = Honest(manager.socket, pairs, clients=_CLIENTS, rate=_RATE, seed=seed)
        with honest:
            phases = Phases(manager, another, seconds=seconds / len(names), seed=seed)
            console = Console(stderr=True)
            told = track(
                phases.through(names), "attacks", total=len(names), console=console, transient=True
            )
            attacked = list(told)
        for each in (manager, another):
            each.stop()
    return [figures_of(each, honest.asked) for each in attacked]


def figures_of(attacked: Attacked, asked: Asked) -> Figures:
    """Return the attack's figures, with what was asked while it went on."""
    quiet, under = asked.during(attacked.quiet), asked.during([attacked.phase])
    elsewhere = asked.during([attacked.elsewhere])
    seen = attacked.seen
    return Figures(
        name=attacked.name,
        deeds=attacked.deeds.done,
        deed=attacked.attack.deed,
        broken=attacked.deeds.broken,
        computes=attacked.attack.computes,
        quiet=[seconds for _, seconds in quiet.answered],
        elsewhere=[seconds for _, seconds in elsewhere.answered],
        attacked=[seconds for _, seconds in under.answered],
        lost=len(under.lost),
        wrong=len(under.wrong),
        lost_in_quiet=len(quiet.lost) + len(elsewhere.lost),
        pings=seen.pings,
        statuses=seen.statuses,
        unanswered=seen.unanswered,
        lines=attacked.lines,
        faults=attacked.faults,
        ended=attacked.ended,
        rss=attacked.rss,
        ceiling=_CEILING,
        descriptors=seen.descriptors,
        after=attacked.after,
        left=attacked.left,
    )
