"""Compact, human-readable numbers. Pure."""

_LENGTHS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_FORMS = ((1, 1, 2, ""), (10, 1, 1, ""), (1e3, 1, 0, ""), (1e4, 1e3, 1, "s"))
_SCALES = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


def count(number: int) -> str:
    """Format a whole number: 9,999, then 12.3k, 4.5M."""
    for scale, unit in _SCALES:
        if number >= max(scale, 10_000):
            return f"{number / scale:.1f}{unit}"
    return f"{number:,}"


def size(number: int | None) -> str:
    """Format bytes as MB of a million bytes; `?` for None."""
    return "?" if number is None else f"{number / 1e6:,.0f} MB"


def duration(seconds: float) -> str:
    """Format seconds in the two largest units that are not zero: 3 d 4 h, 12 s."""
    left, parts = round(seconds), []
    for length, unit in _LENGTHS:
        if left >= length:
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2]) or "0 s"


def milliseconds(number: float) -> str:
    """Format milliseconds in about four characters; from one second on, in seconds."""
    for below, scale, digits, unit in _FORMS:
        if number < below:
            return f"{number / scale:.{digits}f}{unit}"
    return f"{number / 1e3:.0f}s"
