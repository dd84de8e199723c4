"""The daemon: one copy of the models a host, for every process on it."""

__version__ = "0.1.0"
