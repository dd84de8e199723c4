"""An evaluation in words and figures, as a terminal and a page show them. Pure."""

from sidecar.operate.evaluate.evaluation import REFERENCE, Difference, Served


def precision_of(served: Served) -> str:
    """Return what it is served in."""
    if served.quantization == REFERENCE:
        return "FP32"
    bits = f", weights of {served.weight_bits} bits" if served.weight_bits else ""
    return f"{served.quantization}{bits}"


def value_of(value: float) -> str:
    """Return a figure between 0 and 1."""
    return f"{value:.4f}"


def difference_of(found: Difference) -> tuple[str, str, str, str]:
    """Return the difference, its share of FP32's figure, its interval, and the verdict."""
    interval = f"{_signed(found.low, 4)} to {_signed(found.high, 4)}"
    return _signed(found.value, 4), percent(found), interval, found.verdict


def percent(found: Difference) -> str:
    """Return the difference as a share of FP32's figure; nothing where it has none."""
    return "" if found.relative is None else f"{_signed(100 * found.relative, 2)} %"


def megabytes(served: Served) -> str:
    """Return how large its weights are."""
    return f"{served.bytes_weights / 1e6:.1f} MB"


def typeset(text: str) -> str:
    """Return figures as they are set in a page: with minus signs, on one line."""
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def _signed(value: float, digits: int) -> str:
    """Return a number with its sign; what is rounded to 0 has none."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]
