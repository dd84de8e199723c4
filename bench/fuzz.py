"""Peers that libFuzzer thinks up, against a real server, for minutes.

Inputs that reach new code lead to others (by atheris, the extra `fuzz`). Exits with 1 if the
server fails inside, holds anything for a peer that has left, keeps another peer waiting, or if one
peer's frames hold the loop for longer than 5 ms on a quiet host.
"""

import argparse
import base64
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench import subject
from bench.fuzzing import corpus, findings
from bench.fuzzing.findings import Finding
from bench.fuzzing.script import Send, Step, script, sent_bytes
from bench.fuzzing.search import Ended, Search
from bench.fuzzing.stage import Stage
from bench.report import Result, Table, told
from sidecar.models.model import load

CORPUS = Path(__file__).parents[1] / "tests" / "data" / "fuzz-corpus.txt"
LONGEST_TURN = 0.005
_TIMES = 10  # that a long turn is taken again: the least is the peer's, what is more the host's
_SHOWN_BYTES, _SHOWN_TURNS = 48, 5
_MOST_KEPT = 2**18  # bytes that a kept input sends: more than a frame that needs room of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", action="store_true", help=f"what reaches new code goes to {CORPUS.name}"
    )


def measure(arguments: argparse.Namespace) -> Result:
    if find_spec("atheris") is None:
        raise SystemExit("fuzz needs atheris: install Sidecar with its extra `fuzz`")
    known = corpus.read(CORPUS)
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        place = Path(name)
        options = argparse.Namespace(tiny=True, texts=1, seed=arguments.seed)
        artifact = subject.make(options, place).artifact
        corpus.unpack(known, place / "corpus")
        search = Search(artifact, place, seconds=arguments.seconds, seed=arguments.seed)
        ended = search.through()
        found = list(findings.read(search.findings))
        turns = _again(artifact, found)
        new = corpus.packed(search.new)
    if arguments.keep:
        corpus.write(CORPUS, filter(_is_small, [*known, *new]))
    return page(ended, found, turns, new=len(new), seed=arguments.seed)


@dataclass(frozen=True, slots=True)
class Turn:
    """The longest turn of the loop, in seconds, that an input brings about."""

    input: bytes
    seconds: float


def _is_small(data: bytes) -> bool:
    """Whether the tests have time for it: longer frames take other times, not other ways."""
    return sent_bytes(script(data)) <= _MOST_KEPT


def _again(artifact: Path, found: Sequence[Finding]) -> list[Turn]:
    """Take the longest turns again, where nothing counts the lines that are run."""
    inputs = {each.input: each.longest for each in found if not each.fault}
    longest = sorted(inputs, key=lambda data: -inputs[data])[: findings.LONGEST]
    with Stage([load(artifact)]) as stage:
        return [
            Turn(data, min(stage.play(script(data)).longest for _ in range(_TIMES)))
            for data in longest
        ]


def page(
    ended: Ended, found: Sequence[Finding], turns: Sequence[Turn], *, new: int, seed: int
) -> Result:
    """Return what the search came to; `failed` says what is not as it has to be."""
    faults = [each for each in found if each.fault]
    longest = max(turns, key=lambda turn: turn.seconds, default=Turn(b"", 0.0))
    return Result(
        title="Peers that libFuzzer thinks up",
        sides=[],
        figures={
            "inputs": ended.inputs,
            "edges of the code reached": ended.edges,
            "inputs that reached new code": new,
            "kinds of faults": len(faults),
            "longest turn of the loop, ms": 1e3 * longest.seconds,
            "the same, limit": 1e3 * LONGEST_TURN,
            "its input, in base64": base64.b64encode(longest.input).decode(),
            "seed": seed,
        },
        failed=list(_failures(ended, faults, longest)),
        tables=[_longest_turns(turns)],
    )


def _longest_turns(turns: Sequence[Turn]) -> Table:
    most = sorted(turns, key=lambda turn: -turn.seconds)[:_SHOWN_TURNS]
    rows = [(told(1e3 * turn.seconds, 3), described(script(turn.input))) for turn in most]
    title = "Peers that libFuzzer thinks up: those for whom the loop turns longest"
    return Table(title, ("ms", "what they send"), rows)


def _failures(ended: Ended, faults: Sequence[Finding], longest: Turn) -> Iterator[str]:
    if ended.code or not ended.inputs:
        yield f"the search ended with {ended.code}: {ended.words}"
    for each in faults:
        yield f"{each.fault}\n  by {described(script(each.input))}; input {each.data}"
    if longest.seconds > LONGEST_TURN:
        yield f"one peer holds the loop for {1e3 * longest.seconds:.1f} ms"


def described(steps: Sequence[Step]) -> str:
    """Return what a peer does, in so many words: how much it sends, and the largest of it."""
    sent = [step.data for step in steps if isinstance(step, Send)]
    largest = max(sent, key=len, default=b"")[:_SHOWN_BYTES]
    return f"{told(sent_bytes(steps))} bytes in {len(sent)} pieces, the largest {largest!r}…"
