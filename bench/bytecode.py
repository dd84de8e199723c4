"""Python's bytecode, kept as an installed package's is: programs start, and hold memory, as there.

A module that is compiled when it is imported costs time, and leaves its leftovers in the heap.
"""

import os
from pathlib import Path


def keeping(folder: Path) -> dict[str, str]:
    """Return an environment in which Python keeps its bytecode there, whatever this one says."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**environ, "PYTHONPYCACHEPREFIX": str(folder)}
