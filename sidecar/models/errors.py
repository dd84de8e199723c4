"""What can be wrong with a model, said so that an operator knows what to do."""

from pathlib import Path


class ModelError(Exception):
    """A model cannot be found, read, prepared or verified; the message says why."""


class TemporaryError(ModelError):
    """No fault of the model's: disk or memory ran out. The same may succeed later."""


class UnknownArchitectureError(ModelError):
    """The model is sound, but no graph here computes it; sentence-transformers may."""


class UntrustedError(ModelError):
    """Somebody whom the daemon cannot trust owns `path`, which it was to serve, or may write it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class DamagedError(ModelError):
    """What was prepared is not as it was written; `path` is the file, `reason` what is wrong."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} {reason}: copy the artifact again, or prepare the model again with "
            "`sidecar prepare`"
        )
        self.path = path
        self.reason = reason
