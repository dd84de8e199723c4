"""Three applications that need vectors: with a model of their own, or with the daemon's client.

They are what a user would write, and import nothing else. Each takes lists of texts as lines of
JSON, computes one after the other, and says so.
"""

import json
import sys
from collections.abc import Callable


def serve(embed: Callable[[list[str]], object]) -> None:
    """Embed what comes on standard input until its end."""
    for line in sys.stdin:
        embed(json.loads(line))
        print("done", flush=True)
