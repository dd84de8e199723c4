"""The client under the name of its distribution: `from embedding_sidecar import Client`."""

from client_lib import *  # noqa: F403
from client_lib import __all__  # noqa: F401
