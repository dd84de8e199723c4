"""The daemon: one copy of the models per host, shared by every process on it."""

__version__ = "0.1.0"
