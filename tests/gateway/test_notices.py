"""Rate-limited logging of connections turned away."""

from structlog.testing import capture_logs

from sidecar.gateway.notices import Notices


def test_a_reason_is_said_once_a_minute_with_how_often_it_was() -> None:
    """Each reason is logged at most once a minute, with the count since its last line."""
    now = 0.0
    notices = Notices(lambda: now)
    with capture_logs() as events:
        for _ in range(1000):
            notices.turned_away("one")
        notices.turned_away("another")
        now = 59.0
        notices.turned_away("one")
        now = 60.0
        notices.turned_away("one")
    assert [(event["reason"], event["count"]) for event in events] == [
        ("one", 1), ("another", 1), ("one", 1001),
    ]  # fmt: skip
