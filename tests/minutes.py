"""The thoroughness of a run: `pytest --hypothesis-profile=minutes` tries everything."""

from hypothesis import settings


def may_take_minutes() -> bool:
    """Return whether to try everything, rather than a sample that takes seconds."""
    return settings().max_examples > 100
