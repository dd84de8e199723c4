"""Printing lines of text, with control characters escaped.

Names of models and files, reasons, events and a daemon's answers come from others, and may contain
terminal control sequences. All output passes through this module or `sidecar.cli.console`, which
escapes in the same way.
"""

import sys


def shown(text: str) -> str:
    r"""Return `text` with unprintable characters escaped, as in `\u001b`.

    Unprintable is what `str.isprintable` rejects: controls (C0, C1, DEL), line separators,
    bidirectional controls, lone surrogates. JSON remains JSON of the same value.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def say(text: str, *, flush: bool = False) -> None:
    """Print `text`, of one or more lines, on standard output."""
    print("\n".join(map(shown, text.split("\n"))), flush=flush)


def flush() -> None:
    """Write what `say` has buffered; a process may have no standard output at all."""
    print(end="", flush=True)


def complain(text: object) -> None:
    """Print an error message on one line on standard error."""
    print(f"sidecar: {shown(str(text))}", file=sys.stderr)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - 4 digits
