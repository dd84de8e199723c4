import pytest

from sidecar.serving.state import Lifecycle, State

STARTING, SERVING, RELOADING, DRAINING, STOPPED = State
FOLLOWS = {
    STARTING: {SERVING, STOPPED},
    SERVING: {RELOADING, DRAINING, STOPPED},
    RELOADING: {SERVING, DRAINING, STOPPED},
    DRAINING: {STOPPED},
    STOPPED: set(),
}
PATHS = {
    STARTING: [],
    SERVING: [SERVING],
    RELOADING: [SERVING, RELOADING],
    DRAINING: [SERVING, DRAINING],
    STOPPED: [STOPPED],
}


def test_a_life_moves_as_it_is_drawn():
    """Only the documented transitions are allowed, and only two states accept requests."""
    for state, path in PATHS.items():
        for to in State:
            life = Lifecycle()
            for each in path:
                life.move(each)
            assert (life.state, life.serves) == (state, state in {SERVING, RELOADING})
            if to in FOLLOWS[state]:
                life.move(to)
                assert life.state is to
            else:
                with pytest.raises(ValueError, match=f"{state} cannot become {to}"):
                    life.move(to)
                assert life.state is state
