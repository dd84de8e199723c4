"""What counts as texts, and what is told of what does not: before anything is sent."""

from collections.abc import Iterable, Mapping
from typing import Any

from client_lib.wire.errors import BadRequest

# Iterables, but of no strings in an order that anybody meant.
_NO_LISTS = (bytes, bytearray, memoryview, Mapping, set, frozenset)


def as_texts(texts: Iterable[str], name: str) -> tuple[str, ...]:
    """Return `texts`, which the caller knows as `name`, as a tuple.

    Raises `TypeError` for what is no list, or other iterable, of strings, with what it is and
    the index, and `BadRequest` with the index for a text that is not valid Unicode.
    """
    if not is_list(texts):
        what = "one string" if isinstance(texts, str) else _kind(texts)
        raise TypeError(f"{name} must be a list of strings, not {what}")
    rows = tuple(texts)
    for index, row in enumerate(rows):
        check_text(row, f"{name}[{index}]", index)
    return rows


def is_list(value: object) -> bool:
    """Whether `value` holds things in an order, and is no string."""
    return hasattr(value, "__iter__") and not isinstance(value, (str, *_NO_LISTS))


def as_list(texts: str | Iterable[str]) -> Iterable[str]:
    """Return one string alone as a list of it, and anything else as it is."""
    return [texts] if isinstance(texts, str) else texts


def check_text(text: Any, name: str, index: int | None = None) -> None:
    """Raise `TypeError` for what is no string, `BadRequest` for one that is not valid Unicode."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string, not {_kind(text)}")
    if (position := half_character(text)) is not None:
        message = f"{name} holds half a character (a lone surrogate), at {position}"
        raise BadRequest(message, index=index)


def half_character(text: str) -> int | None:
    """Return where `text` has a surrogate, which no encoding takes; None where it has none."""
    try:
        if not text.isascii():  # a flag that the string carries
            text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _kind(value: object) -> str:
    return type(value).__name__
