"""Measurements run in turn, and what they print is kept."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import refresh
from bench.refresh import Measurement

from .results import result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replace the Python executable by a script that prints a file named after the command."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "no such luck" >&2\ncat {tmp_path}/$3.json\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return tmp_path


def measure(place: Path, printed: dict[str, dict[str, Any]], *names: str) -> int:
    """Measure `names`, of which those in `printed` succeed; return the number of failures."""
    for name, each in printed.items():
        (place / f"{name}.json").write_text(json.dumps(each))
    (place / "kept").mkdir()
    wanted = [Measurement(name, (name,), ("--rounds", "1")) for name in names]
    return refresh.measure(wanted, place / "kept", fast=False)


def test_a_failure_does_not_stop_the_others(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed measurement is reported with its stderr and counted, and the others run."""
    assert measure(fake, {"serve": result()}, "start", "serve") == 1
    assert [path.name for path in (fake / "kept").iterdir()] == ["serve.json"]
    assert "no such luck" in capsys.readouterr().err


def test_a_result_that_must_not_be_is_kept_and_counted(fake: Path) -> None:
    """A result that lists failures is kept, and counts as failed."""
    assert measure(fake, {"faults": result(failed=["requests lost"])}, "faults") == 1
    assert refresh.read(fake / "kept")["faults"]["failed"] == ["requests lost"]


def test_a_result_is_kept_with_its_command_line(fake: Path) -> None:
    """A result is kept with the command line that a user would type."""
    printed = {k: v for k, v in result().items() if k not in {"command", "date"}}
    measure(fake, {"start": printed}, "start")
    kept = refresh.read(fake / "kept")["start"]
    assert kept["command"] == "python -m bench start"
    assert {**kept, "command": "", "date": ""} == {**printed, "command": "", "date": ""}


def test_values_are_kept_on_one_line_to_the_digits_that_count(fake: Path) -> None:
    """Values are kept on one line with five significant digits, for small files and diffs."""
    sides = {"ours": {"unit": "ms", "median": 1 / 3, "values": [1 / 3, 2e-9 / 3, 1]}}
    measure(fake, {"start": result(sides=sides)}, "start")
    assert '"values": [0.33333, 6.6667e-10, 1]\n' in (fake / "kept" / "start.json").read_text()


def test_results_are_read_in_the_order_of_the_measurements(tmp_path: Path) -> None:
    """Results are read in the order of the measurements, with unknown ones last."""
    for name in ("another", "fair", "start"):
        (tmp_path / f"{name}.json").write_text(json.dumps(result()))
    assert list(refresh.read(tmp_path)) == ["start", "fair", "another"]


def test_names_are_anchors_and_differ() -> None:
    """Names of measurements are unique and valid as heading anchors."""
    names = [each.name for each in refresh.MEASUREMENTS]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in names)
