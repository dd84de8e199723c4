"""Formats an evaluation's figures for the terminal and for a page. Pure."""

from sidecar.operate.evaluate.evaluation import REFERENCE, Difference, Served


def precision_of(served: Served) -> str:
    """Return the precision in which the model is served."""
    if served.quantization == REFERENCE:
        return "FP32"
    bits = f", {served.weight_bits}-bit weights" if served.weight_bits else ""
    return f"{served.quantization}{bits}"


def value_of(value: float) -> str:
    """Format a figure between 0 and 1."""
    return f"{value:.4f}"


def difference_of(found: Difference) -> tuple[str, str, str, str]:
    """Format the difference, its share of FP32's figure, its interval, and the verdict."""
    interval = f"{_signed(found.low, 4)} to {_signed(found.high, 4)}"
    return _signed(found.value, 4), percent(found), interval, found.verdict


def percent(found: Difference) -> str:
    """Format the difference in percent of FP32's figure; empty if that is undefined."""
    return "" if found.relative is None else f"{_signed(100 * found.relative, 2)} %"


def megabytes(served: Served) -> str:
    """Format the size of its weights."""
    return f"{served.bytes_weights / 1e6:.1f} MB"


def typeset(text: str) -> str:
    """Typeset figures for a page: with minus signs, and without line breaks."""
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def _signed(value: float, digits: int) -> str:
    """Format a number with its sign, or with none if it rounds to 0."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]
