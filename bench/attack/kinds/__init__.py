"""The attacks, by name."""

from collections.abc import Mapping

from bench.attack.kinds import connections, contents, files, frames, readers, requests, texts
from bench.attack.kinds.attack import Attack
from bench.attack.target import Target

_OF_A_KIND: Mapping[str, Attack] = {
    **frames.ATTACKS,
    **connections.ATTACKS,
    **contents.ATTACKS,
    **requests.ATTACKS,
    **readers.ATTACKS,
}


def _any(target: Target) -> None:
    """Be any of the attackers that compute nothing."""
    target.chance.choice(list(_OF_A_KIND.values())).run(target)


def _busy(target: Target) -> None:
    while True:
        target.did()


BESIDE: Mapping[str, Attack] = {
    # What honest clients have of it is the host's, and of each attack beside it.
    "busy processes, the control": Attack("turns of a loop", _busy),
    **_OF_A_KIND,
    "sixteen of these at once": Attack("deeds", _any, users=2, processes=8),
    **texts.ATTACKS,
}
"""Those beside honest clients of a daemon that serves."""
ON_STARTS: Mapping[str, Attack] = files.ATTACKS
"""Those on a daemon that is about to listen; they are given the path of its socket."""
ATTACKS: Mapping[str, Attack] = {**BESIDE, **ON_STARTS, "honest neighbours": texts.NEIGHBOURS}
