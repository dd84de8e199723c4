"""What the kernel says of a process: the memory that it holds, the time that it has computed."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def held(pid: int | str) -> dict[str, int]:
    """Return the process's bytes of each kind: `Rss`, `Pss`, `Pss_Anon`, ….

    A page that n processes map counts whole in each one's RSS, and for 1 / n in its PSS.
    """
    _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return {name: _bytes(value) for name, _, value in (line.partition(":") for line in lines)}


def untouched(pid: int | str, folder: Path) -> int:
    """Return how many bytes of files in `folder` are mapped and not in its memory."""
    total = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if " " in name:  # "7f12-7f34 r--p 0 fe:00 42   /path": a mapping, and then its fields
            ours = str(folder) in line
        elif ours and name in {"Size", "Rss"}:
            total += _bytes(value) if name == "Size" else -_bytes(value)
    return total


def computed(pid: int) -> float:
    """Return the seconds that all of the process's threads have computed, by the kernel's clock."""
    _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / _TICKS


def _bytes(value: str) -> int:
    return 1024 * int(value.split(maxsplit=1)[0])  # "  16384 kB"
