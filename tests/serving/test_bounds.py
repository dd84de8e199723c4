import pytest

from sidecar.serving.bounds import Bounds
from sidecar.serving.job import Load

BOUNDS = Bounds(rows=10, tokens=100, bytes=1000, peer_share=0.5)


@pytest.mark.parametrize(
    ("held", "more", "excess"),
    [
        (Load(), Load(10, 100, 1000), 0),
        (Load(8, 8, 8), Load(2, 2, 2), 0),
        (Load(8, 8, 8), Load(4, 4, 4), 2 / 8),
        (Load(1, 80, 8), Load(1, 40, 4), 20 / 80),
        (Load(1, 10, 500), Load(1, 10, 600), 100 / 500),
        (Load(8, 80, 8), Load(4, 60, 4), 40 / 80),
        (Load(), Load(1, 1, 1001), float("inf")),
    ],
)
def test_the_tightest_bound_decides(held, more, excess):
    """What part has to leave before more fits; what never fits is infinite."""
    assert BOUNDS.excess(held, more) == excess


def test_a_peer_has_its_share_of_each():
    """And of a small number at least one."""
    assert BOUNDS.of_a_peer == Bounds(5, 50, 500, 0.5)
    assert Bounds(rows=1, peer_share=0).of_a_peer.rows == 1
