"""The search: `python -m bench.fuzzing.guided ARTIFACT FOLDER SECONDS SEED`.

libFuzzer, by way of atheris, keeps in FOLDER/new the inputs that reach code which no other has
reached, and makes others of them and of those in FOLDER/corpus. What they bring about is noted in
FOLDER/findings.jsonl, and the search goes on. Its own words go to stderr.
"""

import sys
from pathlib import Path

import atheris

_LONGEST_INPUT = 1_024
_SERVED_SECONDS = 60  # for one input: something has stopped for good
# Inputs may be of any length from the start: a script of a few bytes does nothing.
_OPTIONS = ("-len_control=0", "-rss_limit_mb=0")

with atheris.instrument_imports(include=["client_lib.wire", "sidecar.serving"]):
    from bench.fuzzing.findings import Findings
    from bench.fuzzing.script import script
    from bench.fuzzing.stage import Stage
    from sidecar.models.model import load


def main(artifact: str, place: str, seconds: str, seed: str) -> None:
    folder = Path(place)
    findings = Findings(folder / "findings.jsonl")
    stage = Stage([load(Path(artifact))]).__enter__()  # libFuzzer ends the process itself

    def one(data: bytes) -> None:
        played = stage.play(script(data))
        findings.take(data, played.faults, played.longest)

    limits = (f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={_LONGEST_INPUT}")
    limits += (f"-timeout={_SERVED_SECONDS}", f"-artifact_prefix={folder}/")
    atheris.Setup([sys.argv[0], *_OPTIONS, *limits, f"{folder}/new", f"{folder}/corpus"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
