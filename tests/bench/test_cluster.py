"""`python -m bench cluster`: what is told of its rates."""

import pytest

from bench.cluster import _result
from sidecar.host import read_host


def test_rates_become_figures() -> None:
    """Two actors to one, and what a core comes to at the better of both."""
    told = _result({1: [90.0, 100.0, 110.0], 2: [120.0, 125.0, 130.0]}, "model", 1024).as_map()
    assert told["sides"]["2 actors"]["median"] == 125
    assert told["figures"] == {
        "texts/s of 2 actors, to those of 1": pytest.approx(1.25),
        "texts/s a core, the better of both": pytest.approx(125 / read_host().cores),
    }
    assert list(told["tables"][0]["rows"][0]) == ["1 actor", "100 (90 to 110)"]
    assert [point["x"] for point in told["charts"][0]["series"]["Sidecar INT8"]] == [
        "1 actor", "2 actors",
    ]  # fmt: skip
