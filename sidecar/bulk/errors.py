"""Errors that prevent a corpus from being embedded.

BulkError
├── InputError    a file or one of its lines is invalid
├── OutputError   the result cannot be written
└── StateError    the output or its partial result is in the way
"""


class BulkError(Exception):
    """Base of errors that the user can fix; the message states the problem and the remedy."""


class InputError(BulkError):
    """A file cannot be read, or one of its lines holds no valid text."""


class OutputError(BulkError):
    """The result or the partial result cannot be written."""


class StateError(BulkError):
    """The output exists, or its partial result belongs to another command, process or user."""
