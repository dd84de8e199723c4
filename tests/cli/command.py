"""The command as a process of a test's own."""

import os
import subprocess
import sys


def sidecar(
    *arguments: str, stdin: str | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}
    clean["SIDECAR_DEVICE"] = "cpu"  # whatever else the host has
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments], input=stdin,
        capture_output=True, text=True, env=clean | environ, timeout=240, check=False,
    )  # fmt: skip
