"""Processes that work until their standard input ends, and then say what came of it."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


def last_words(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> Iterator[Any]:
    """End all of `processes` at once; yield the JSON that each prints.

    Raises `subprocess.TimeoutExpired` where one that has said it is not gone within `seconds`.
    """
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        with process.stdout:
            yield json.loads(process.stdout.read())
        process.wait(seconds)
