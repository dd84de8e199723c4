"""What a fuzzer's search has found, passed from its process as JSON lines: faults, and long turns.

Only the longest turns are of interest: they are timed again where nothing counts the lines that
are run.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

LONGEST = 40
"""So many turns are timed again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input in base64, what went wrong there ("" where nothing did), its longest turn, s."""

    data: str
    fault: str
    longest: float

    @property
    def input(self) -> bytes:
        return base64.b64decode(self.data)


class Findings:
    """Writes each kind of fault once, and a turn that is among the longest so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: set[str] = set()
        self._longest: list[float] = []

    def take(self, data: bytes, faults: list[str], longest: float) -> None:
        for fault in faults:
            if (kind := fault.strip().splitlines()[-1]) not in self._known:
                self._known.add(kind)
                self._write(data, fault, longest)
        if len(self._longest) < LONGEST or longest > self._longest[0]:
            self._longest = sorted([*self._longest, longest])[-LONGEST:]
            self._write(data, "", longest)

    def _write(self, data: bytes, fault: str, longest: float) -> None:
        finding = Finding(base64.b64encode(data).decode(), fault, longest)
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(finding)) + "\n")


def read(file: Path) -> Iterator[Finding]:
    """Yield what was found; nothing where nothing was written."""
    if file.exists():
        for line in file.read_text().splitlines():
            yield Finding(**json.loads(line))
