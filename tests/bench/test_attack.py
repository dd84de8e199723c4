"""`python -m bench faults --attack`: its figures, its verdicts and its parts."""

import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench.attack.honest import Asked
from bench.attack.kinds import BESIDE
from bench.attack.measure import figures_of
from bench.attack.pages import page
from bench.attack.party import Party
from bench.attack.phases import Attacked, Deeds
from bench.attack.starts import Started
from bench.attack.verdict import Figures, failures, ratio
from bench.attack.watch import Seen, traces_of

WITHSTOOD = Figures(
    name="pings", deeds=9, deed="requests", broken=0, computes=False,
    quiet=[0.010] * 200, elsewhere=[0.005] * 200, attacked=[0.015] * 200, lost=0,
    wrong=0, lost_in_quiet=0, pings=[0.001], statuses=[0.002], unanswered=0, lines=10.0,
    faults=0, ended=0, rss=100 << 20, ceiling=384 << 20, descriptors=40, after=1.0,
)  # fmt: skip


def test_an_attack_within_all_limits_is_withstood() -> None:
    """An attack with every figure within its limit, or at it, is withstood."""
    assert list(failures(WITHSTOOD)) == []
    assert list(failures(replace(WITHSTOOD, attacked=[0.020] * 200))) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lost": 2}, "2 honest requests lost"),
        ({"lost_in_quiet": 1}, "1 honest requests lost before or after it"),
        ({"wrong": 1}, "1 wrong vectors"),
        ({"unanswered": 3}, "3 pings or statuses of root not answered"),
        ({"faults": 1}, "1 faults that the daemon told of"),
        ({"ended": 1}, "1 daemons that ended"),
        ({"attacked": [0.021] * 200}, "honest p99 2.1 times as long"),
        ({"attacked": [0.010] * 190 + [1.0] * 10}, "honest p99 100.0 times as long"),
        ({"attacked": [0.010] * 99}, "too few honest requests"),
        ({"elsewhere": [0.010] * 99}, "too few honest requests"),
        ({"lines": 10.5}, "10 events a second about one user"),
        ({"rss": 385 << 20}, "385 MiB, over the ceiling of 384 MiB"),
        ({"after": 1.1}, "all given back after 1.1 s only"),
        ({"after": 5.0, "left": ["memory", "rows"]}, "memory and rows still held after 5 s"),
        ({"deeds": 0}, "the attack was not carried out"),
        ({"broken": 1}, "the attack was not carried out: 1 attackers ended"),
    ],
)  # fmt: skip
def test_each_figure_over_its_limit_is_named(change: dict, message: str) -> None:
    """A single figure over its limit fails the attack and is named."""
    (failure,) = failures(replace(WITHSTOOD, **change))
    assert failure.startswith(message)


def test_the_page_fails_for_what_failed_alone() -> None:
    """The table has each attack's verdict, and `failed` only the failed ones with their reason."""
    lost = replace(WITHSTOOD, name="backlog", lost=1)
    starts = [Started("a lock", 0.5, ""), Started("files", 30.0, "ended with 73")]
    result = page([WITHSTOOD, lost], starts, seed=1).as_map()
    assert result["failed"] == ["backlog: 1 honest requests lost", "files: ended with 73"]
    assert [(row[0], row[-1]) for row in result["tables"][0]["rows"]] == [
        ("pings", "withstood"), ("backlog", "FAILED"),
    ]  # fmt: skip
    assert result["figures"]["attacks withstood"] == 2
    assert page([WITHSTOOD], [], seed=1).failed == []


def test_requests_count_for_the_phase_in_which_they_were_due() -> None:
    """A request counts for the phase in which it was due, however late its answer."""
    asked = Asked(
        answered=[(1.0, 0.01), (2.5, 9.0), (4.0, 0.02), (5.5, 0.03)],
        lost=[(2.9, "Overloaded")],
        wrong=[4.5],
    )
    attacked = Attacked(
        name="pings", attack=BESIDE["pings"], quiet=[(0.0, 2.0), (4.0, 5.0)],
        elsewhere=(5.0, 6.0), phase=(2.0, 3.0),
        deeds=Deeds(7, 0), seen=Seen(), rss=1, lines=2.0, faults=0, ended=0, after=0.1, left=[],
    )  # fmt: skip
    figures = figures_of(attacked, asked)
    assert (figures.quiet, figures.elsewhere, figures.attacked) == ([0.01, 0.02], [0.03], [9.0])
    assert (figures.lost, figures.lost_in_quiet, figures.deeds) == (1, 0, 7)
    assert ratio(replace(figures, quiet=[0.5] * 2, attacked=[1.0] * 2)) == 2.0
    assert ratio(replace(figures, elsewhere=[2.0] * 2, quiet=[0.5] * 2, attacked=[3.0] * 2)) == 1.5


def test_an_answer_with_another_vector_is_wrong() -> None:
    """An answer with another vector counts as wrong as well as answered."""
    asked = Asked()
    asked.settle(1.0, 1.5, b"vector", b"vector")
    asked.settle(2.0, 2.25, b"vector", b"another")
    assert asked.answered == [(1.0, 0.5), (2.0, 0.25)]
    assert asked.wrong == [2.0]
    assert asked.during([(0.0, 1.9)]).wrong == []


def test_what_is_left_of_a_user_is_found_wherever_it_is() -> None:
    """Connections, memory and queued rows of a user are found, but not those of similar uids."""

    def status(uid: int) -> dict:
        peer = f"pid 7 (uid {uid})"
        return {
            "peers": [{"pid": 7, "uid": uid, "gid": uid, "connections": 1}],
            "memory": {"held_bytes": 100, "control": {"held_by_peer": {peer: 100}}},
            "queue": {"interactive": {"rows": 1, "peers": {peer: {}}}, "bounds": {"rows": 9}},
        }

    assert traces_of(status(65_534), {65_534}) == ["connections", "memory", "rows"]
    assert traces_of(status(165_534), {65_534}) == []
    assert traces_of(status(6_553), {65_534}) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="attackers become other users, which takes root")
def test_attackers_are_other_users_and_are_gone_afterwards() -> None:
    """Attackers run as other users, and their connections end with the attack."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        path = Path(folder) / "socket"
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(1_024)
        with Party("idle, before hello", path, 1, [65_534]) as party:
            party.begin()
            peer, _ = listener.accept()
            deeds = party.end()
        with peer:
            peer.settimeout(60)
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert int.from_bytes(raw[4:8], sys.byteorder) == 65_534
            assert peer.recv(1) == b""
    assert deeds.broken == 0


@pytest.mark.slow
def test_without_root_it_says_what_it_needs() -> None:
    """Without root the program exits with 1 and one line that says why."""
    program = (
        "import os, sys; os.geteuid = lambda: 1000;"
        "from bench.attack.measure import measure; measure(['pings'], seconds=1, seed=1)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "--attack needs root: attackers and honest clients are different users\n"
