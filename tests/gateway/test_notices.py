"""How often is said what happens often."""

from structlog.testing import capture_logs

from sidecar.gateway.notices import Notices


def test_a_reason_is_said_once_a_minute_with_how_often_it_was() -> None:
    """Each reason by itself: however many callers are turned away, the log stays short."""
    now = 0.0
    notices = Notices(lambda: now)
    with capture_logs() as said:
        for _ in range(1000):
            notices.turned_away("one")
        notices.turned_away("another")
        now = 59.0
        notices.turned_away("one")
        now = 60.0
        notices.turned_away("one")
    assert [(line["reason"], line["count"]) for line in said] == [
        ("one", 1), ("another", 1), ("one", 1001),
    ]  # fmt: skip
