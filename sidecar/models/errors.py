"""What can be wrong with a model, said so that an operator knows what to do."""


class ModelError(Exception):
    """A model cannot be found, read, prepared or verified; the message says why."""


class TemporaryError(ModelError):
    """No fault of the model's: disk or memory ran out. The same may succeed later."""


class UnknownArchitectureError(ModelError):
    """The model is sound, but no graph here computes it; sentence-transformers may."""
