"""`python -m tests.mutations`: put slips into the code, one by one, and see that tests notice them.

The slips are in tests/mutations.toml. Each is applied to a copy of the tree, where the tests that
it names are run: one of them must fail. Exits with 1 if a slip goes unnoticed, or if the text that
it changes is no longer in the code. `--sample 20` tries 20 of them, different ones each day.
"""

import argparse
import compileall
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
SLIPS = Path(__file__).with_suffix(".toml")
# What the tests read: their own code, the code under test, and the files shipped with it.
_PARTS = (
    *("bench", "client_lib", "docs", "sidecar", "systemd", "tests", "mkdocs.yml", "pyproject.toml"),
)
_PAGES = "*.md"
_TEST_SECONDS = 60  # a test that hangs for longer has noticed the slip
_SLIP_SECONDS = 240  # so has a test process that takes longer
_SECONDS = 1_200  # limit for all the named tests, without a slip
_FAILED = 1  # pytest's exit code, see `pytest.ExitCode`


@dataclass(frozen=True)
class Slip:
    """A change to one file that one of `tests` (pytest node ids) must notice."""

    room: str
    what: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def put_into(self, root: Path) -> None:
        """Change the file under `root`. Raises `ValueError` unless `before` occurs exactly once."""
        file = root / self.file
        code = file.read_text("utf-8") if file.is_file() else ""
        if (times := code.count(self.before)) != 1:
            raise ValueError(f"its text occurs {times} times in {self.file}")
        file.write_text(code.replace(self.before, self.after), "utf-8")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a slip: `noticed`, or why not."""

    slip: Slip
    outcome: str
    noticed: bool


def read(path: Path = SLIPS) -> list[Slip]:
    """Return the slips in a file, in order."""
    tables = tomllib.loads(path.read_text("utf-8"))["slip"]
    return [Slip(**{**table, "tests": tuple(table["tests"])}) for table in tables]


def judged(slip: Slip, tree: Path) -> Verdict:
    """Try a slip in a tree, and restore the tree."""
    file = tree / slip.file
    try:
        slip.put_into(tree)
    except ValueError as error:
        return Verdict(slip, f"gone: {error}", noticed=False)
    try:
        code = _run(tree, slip.tests, "-x", seconds=_SLIP_SECONDS, stdout=subprocess.DEVNULL)
    finally:
        shutil.copy2(ROOT / slip.file, file)  # keeps the mtime, so that byte code stays valid
    if code in {_FAILED, None}:
        return Verdict(slip, "noticed", noticed=True)
    why = "passed unnoticed" if code == 0 else f"its tests cannot run: pytest exits with {code}"
    return Verdict(slip, why, noticed=False)


def _run(
    tree: Path,
    tests: Sequence[str],
    *options: str,
    seconds: float,
    stdout: int | None = None,
) -> int | None:
    """Return pytest's exit code, or None if it took longer than `seconds`."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    # Use the package in the tree, not the installed one, and do not keep a slip's byte code.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            [*command, f"--timeout={_TEST_SECONDS}", *options, *tests],
            check=False, cwd=tree, env=environment, timeout=seconds, stdout=stdout,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def _trees(count: int) -> Iterator[list[Path]]:
    """Make `count` copies of this tree, each with a link to `shared` next to it."""
    with tempfile.TemporaryDirectory(prefix="sidecar-slips-") as folder:
        trees = [Path(folder, str(number), "tree") for number in range(count)]
        for tree in trees:
            _copy(tree)
        yield trees


def _copy(tree: Path) -> None:
    tree.mkdir(parents=True)
    for part in (*(ROOT / name for name in _PARTS), *ROOT.glob(_PAGES)):
        if part.is_dir():
            shutil.copytree(part, tree / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(part, tree / part.name)
    if (beside := ROOT.parent / "shared").is_dir():
        (tree.parent / "shared").symlink_to(beside)
    for room in ("bench", "client_lib", "sidecar"):
        compileall.compile_dir(tree / room, quiet=1)


def tried(slips: Sequence[Slip], jobs: int) -> Iterator[Verdict]:
    """Try slips, `jobs` at a time, in copies of this tree; yield the verdicts in order."""
    with _trees(jobs) as trees, ThreadPoolExecutor(jobs) as pool:
        named = sorted({test for slip in slips for test in slip.tests})
        if _run(trees[0], named, "-rf", seconds=_SECONDS) != 0:
            raise SystemExit("the tests fail even without a slip: fix them first")
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            free.put(tree)

        def one(slip: Slip) -> Verdict:
            tree = free.get()
            try:
                return judged(slip, tree)
            finally:
                free.put(tree)

        yield from pool.map(one, slips)


def main() -> int:
    """Try the selected slips, and return the exit code."""
    arguments = _arguments()
    slips = [s for s in read() if arguments.room in {None, s.room}]
    if arguments.sample:
        chance = random.Random(arguments.seed)
        slips = chance.sample(slips, min(arguments.sample, len(slips)))
    verdicts = []
    for verdict in tried(slips, arguments.jobs):
        verdicts.append(verdict)
        if not arguments.json:
            print(f"{verdict.outcome:8}  {verdict.slip.room}: {verdict.slip.what}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        _show_rooms(verdicts)
    return 0 if all(verdict.noticed for verdict in verdicts) else 1


def _show_rooms(verdicts: Sequence[Verdict]) -> None:
    of_room = Counter(verdict.slip.room for verdict in verdicts)
    noticed = Counter(verdict.slip.room for verdict in verdicts if verdict.noticed)
    for room, number in sorted(of_room.items()):
        print(f"{room:10} {noticed[room]} of {number} noticed")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--room", help="only the slips of this room")
    parser.add_argument("--sample", type=int, metavar="N", help="only N slips, chosen by --seed")
    today = datetime.now(UTC).date().isoformat()
    parser.add_argument("--seed", default=today, help="the same seed, the same sample (today)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="slips at a time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
