"""The daemon: one copy of the models per host, shared by every process on it."""

from client_lib import __version__ as __version__
