"""Check texts before anything is sent."""

from collections.abc import Iterable, Mapping
from typing import Any

from client_lib.wire.errors import BadRequest

# Iterables, but not of strings in a meaningful order.
_NO_LISTS = (bytes, bytearray, memoryview, Mapping, set, frozenset)


def as_texts(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """Return `texts` as a tuple; error messages call them `name`.

    Raises `TypeError`, with the type and the index, for anything but an ordered iterable of
    strings, and `BadRequest`, with the index, for a text that is not valid Unicode.
    """
    if not is_list(texts):
        what = "one string" if isinstance(texts, str) else _kind(texts)
        raise TypeError(f"{name} must be a list of strings, not {what}")
    rows = tuple(texts)
    for index, row in enumerate(rows):
        check_text(row, f"{name}[{index}]", index)
    return rows


def is_list(value: object) -> bool:
    """Whether `value` is an ordered iterable other than a string."""
    return hasattr(value, "__iter__") and not isinstance(value, (str, *_NO_LISTS))


def as_list(texts: str | Iterable[str]) -> Iterable[str]:
    """Return a single string as a list of one, and anything else as it is."""
    return [texts] if isinstance(texts, str) else texts


def check_text(text: Any, name: str, index: int | None = None) -> None:
    """Raise `TypeError` for anything but a string, `BadRequest` if it is not valid Unicode."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, not {_kind(text)}")
    if (position := half_character(text)) is not None:
        message = f"{name} holds half a character (a lone surrogate) at {position}"
        raise BadRequest(message, index=index)


def half_character(text: str) -> int | None:
    """Return the position of a lone surrogate, which no encoding accepts; None if there is none."""
    try:
        if not text.isascii():  # only reads a flag of the string
            text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _kind(value: object) -> str:
    return type(value).__name__
