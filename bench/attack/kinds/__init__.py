"""The attacks, by name."""

from collections.abc import Mapping

from bench.attack.kinds import connections, contents, files, frames, readers, requests, texts
from bench.attack.kinds.attack import Attack

BESIDE: Mapping[str, Attack] = {
    **frames.ATTACKS,
    **connections.ATTACKS,
    **contents.ATTACKS,
    **requests.ATTACKS,
    **readers.ATTACKS,
    **texts.ATTACKS,
}
"""Those beside honest clients of a daemon that serves."""
ON_STARTS: Mapping[str, Attack] = files.ATTACKS
"""Those on a daemon that is about to listen; they are given the path of its socket."""
ATTACKS: Mapping[str, Attack] = {**BESIDE, **ON_STARTS, "honest neighbours": texts.NEIGHBOURS}
