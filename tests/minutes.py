"""How thorough a run may be: `pytest --hypothesis-profile=minutes` leaves nothing out."""

from hypothesis import settings


def may_take_minutes() -> bool:
    """Whether everything is tried, rather than a share of it that takes seconds."""
    return settings().max_examples > 100
