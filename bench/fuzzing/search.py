"""The process that searches, seen from outside: how far it is, and how it ended."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_STATE = re.compile(r"#(\d+)\s.*?cov: (\d+) .*?corp: (\d+)/")
_LAST_WORDS = 12


@dataclass(frozen=True, slots=True)
class Ended:
    """How many inputs were run, how many edges of the code they reached, and the exit code.

    `words` are its last: where it did not end well, they say why.
    """

    inputs: int
    edges: int
    code: int
    words: str


class Search:
    """Searches from what is in `place`/corpus; `new` and `findings` have what it found."""

    def __init__(self, artifact: Path, place: Path, *, seconds: int, seed: int) -> None:
        self.new = place / "new"
        self.findings = place / "findings.jsonl"
        self._seconds = seconds
        module = "bench.fuzzing.guided"
        # libFuzzer ends the process without a goodbye: what it leaves lies in `place`.
        self._environ = {**os.environ, "TMPDIR": str(place)}
        self._command = [sys.executable, "-m", module, artifact, place, str(seconds), str(seed)]

    def through(self) -> Ended:
        """Search for all of the time."""
        self.new.mkdir()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with (
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            subprocess.Popen(
                self._command, stderr=subprocess.PIPE, text=True, env=self._environ
            ) as process,
        ):
            task = progress.add_task("", total=self._seconds)
            begun, inputs, edges = time.monotonic(), 0, 0
            last: deque[str] = deque(maxlen=_LAST_WORDS)
            assert process.stderr is not None
            for line in process.stderr:
                last.append(line)
                if state := _STATE.match(line):
                    inputs, edges, kept = map(int, state.groups())
                    about = f"{inputs} inputs, {edges} edges, {kept} kept"
                    done = time.monotonic() - begun
                    progress.update(task, completed=done, description=about)
        return Ended(inputs, edges, process.returncode, "".join(last))
