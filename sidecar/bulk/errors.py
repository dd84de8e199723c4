"""What keeps a corpus from being embedded.

BulkError
├── InputError    a file, or a line of it, is not what it should be
├── OutputError   the result cannot be written
└── StateError    what stands at the output is of something else
"""


class BulkError(Exception):
    """Base of what the user can mend; the message names it and says how."""


class InputError(BulkError):
    """A file cannot be read, or a line of it holds no text."""


class OutputError(BulkError):
    """The result, or what there is of it, cannot be written."""


class StateError(BulkError):
    """The output is there already, or what was begun beside it is of another command."""
