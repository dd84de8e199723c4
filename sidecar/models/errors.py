"""What can be wrong with a model, said so that an operator knows what to do."""


class ModelError(Exception):
    """A model cannot be found, read, prepared or verified; the message says why."""


class UnknownArchitectureError(ModelError):
    """The model is sound, but no graph here computes it; sentence-transformers may."""
