"""What can be wrong with a model, in errors that tell an operator what to do."""

from pathlib import Path


class ModelError(Exception):
    """A model cannot be found, read, prepared or verified; the message says why."""


class TemporaryError(ModelError):
    """Disk or memory ran out, which is not the model's fault. A later attempt may succeed."""


class UnknownArchitectureError(ModelError):
    """The model is sound, but no graph here computes it; sentence-transformers may."""


class UntrustedError(ModelError):
    """An untrusted user owns or may write to `path`, which was to be served."""

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
