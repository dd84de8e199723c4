"""`python -m bench cluster`: the figures made from its rates."""

import pytest

from bench.cluster import _result
from sidecar.host import read_host


def test_rates_become_figures() -> None:
    """The figures are the ratio of two actors to one, and the best rate per core."""
    kept = _result({1: [90.0, 100.0, 110.0], 2: [120.0, 125.0, 130.0]}, "model", 1024).as_map()
    assert kept["sides"]["2 actors"]["median"] == 125
    assert kept["figures"] == {
        "texts/s of 2 actors, to those of 1": pytest.approx(1.25),
        "texts/s a core, the better of both": pytest.approx(125 / read_host().cores),
    }
    assert list(kept["tables"][0]["rows"][0]) == ["1 actor", "100 (90 to 110)"]
    assert [point["x"] for point in kept["charts"][0]["series"]["Sidecar INT8"]] == [
        "1 actor", "2 actors",
    ]  # fmt: skip
