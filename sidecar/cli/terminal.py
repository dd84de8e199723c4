"""What a command says, line by line. Whatever others wrote in it reaches no terminal as a command.

Names of models and files, reasons, events and what a daemon answers are somebody's words, and may
hold the sequences by which a terminal is controlled. All that is printed passes through here, or
through `sidecar.cli.console`, which shows characters as this does.
"""

import sys


def shown(text: str) -> str:
    r"""Return `text` with every character that is not seen written as what it is: `\u001b`.

    Those are what Python does not call printable: controls (C0, C1, DEL), line separators, what
    turns the direction of writing, halves of characters. JSON stays JSON of the same value.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def say(text: str, *, flush: bool = False) -> None:
    """Print `text`, which may have several lines, on standard output."""
    print("\n".join(map(shown, text.split("\n"))), flush=flush)


def complain(text: object) -> None:
    """Say in one line on standard error what is wrong."""
    print(f"sidecar: {shown(str(text))}", file=sys.stderr)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - 4 digits
