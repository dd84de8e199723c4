"""An artifact prepacked for this processor, and what more threads gain for a lone text.

onnxruntime multiplies weights in an order of its own, which depends on the processor. It is worked
out once, into a file in the cache, and everything that serves the artifact maps that file: the old
and new models of a reload, daemons on the same host, and the two sessions of one model. So a second
session, whose threads share one row, only adds memory for its activations.
"""

import glob
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from sidecar.encoder import runtime
from sidecar.encoder.runtime import Session
from sidecar.host import read_host
from sidecar.memory import let_go
from sidecar.models import manifest as manifests
from sidecar.models.compute import is_as_stored, session_of
from sidecar.models.damage import check_artifact, log_damaged
from sidecar.models.digests import Digests
from sidecar.models.drafts import clear, draft_of, put_first, sweep
from sidecar.models.durable import make_folder
from sidecar.models.errors import DamagedError, UntrustedError
from sidecar.models.intact import Files, Stored, check, check_sizes, loss_told, read_bytes, record
from sidecar.models.manifest import GRAPH, TOKENIZER, Speed
from sidecar.models.probes import probe_inputs
from sidecar.models.rows import Row
from sidecar.models.speed import measure_speed
from sidecar.models.tokenizer import Tokenizer
from sidecar.models.trust import Owner, refuse_untrusted, refuse_untrusted_cache

log = structlog.get_logger()

_NOTE = "layout.json"
_FORMAT = 2
# Row lengths at which more threads are tried: a query and a paragraph.
_TOKENS = (12, 96)
# The least speedup of a lone row that justifies using the other cores.
_LEAST_GAIN = 1.15
_ONE = "1 thread"
# A layout for another processor, release or number of threads may be needed again.
_KEPT_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Layout:
    """The `graph` to open, and how many `threads` compute a lone row.

    `speed` holds the measurements on this host, by number of threads in words. `files` are those
    beside the graph, if it has a folder of its own.
    """

    graph: Path
    threads: int = 1
    speed: Mapping[str, Speed] = field(default_factory=dict)
    files: Files = field(default_factory=dict)


def layout_of(artifact: Path, cache: Path, threads: int) -> Layout:
    """Return the layout of `artifact` for a lone row on up to `threads` threads.

    If there is none in `cache`, it is created, which takes about a second. If that fails, the
    artifact's own graph serves, with one thread per row. The layout's files are checked when they
    are loaded; those it was made from are checked here: raises `DamagedError` for the artifact.
    """
    try:
        return _layout(artifact, cache, threads)
    except DamagedError as error:
        return layout_anew(artifact, cache, threads, error)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no other class in common
        return _without(artifact, error)


def layout_anew(artifact: Path, cache: Path, threads: int, damage: DamagedError) -> Layout:
    """Log that a layout is damaged, remove it, and do what `layout_of` does.

    Raises `damage` if it is the artifact's own.
    """
    if artifact in {damage.path, damage.path.parent}:
        raise damage
    log_damaged(artifact.name, damage)
    folder = damage.path.parent
    try:
        if not _is_whole(folder, artifact):  # unless another daemon has replaced it meanwhile
            clear(folder)
        return _layout(artifact, cache, threads)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model can be served without
        return _without(artifact, error)


def _layout(artifact: Path, cache: Path, threads: int) -> Layout:
    refuse_untrusted_cache(cache)
    folder = cache / f"{artifact.name}-layout-{_key(artifact, threads)}"
    if folder.exists():
        layout = _read(folder, artifact)
        check_sizes(folder, layout.files)
        _check_laid_out(artifact, layout, cache)
        return layout
    _make(artifact, folder, threads)
    _sweep(cache, artifact, folder)
    return _read(folder, artifact)


def _without(artifact: Path, error: Exception) -> Layout:
    """Log `error` and return a fallback without a layout; raise it if the artifact is at fault."""
    if isinstance(error, DamagedError | UntrustedError) and artifact in {
        error.path,
        error.path.parent,
    }:
        raise error
    log.warning("model.layout_failed", model=artifact.name, reason=" ".join(str(error).split()))
    return Layout(artifact / GRAPH)


def _key(artifact: Path, threads: int) -> str:
    """Return a hash of everything that the layout and its speed depend on.

    The manifest stands for the artifact's files, since it holds their digests.
    """
    host = read_host()
    facts = (
        (artifact / manifests.FILE).read_text("utf-8"),
        f"{host.cpu_model} {sorted(host.isa)}",
        f"{_FORMAT} {runtime.version()} {threads}",
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _make(artifact: Path, folder: Path, threads: int) -> None:
    """Write the layout; it appears whole or not at all."""
    make_folder(folder.parent)
    sweep(folder)
    try:
        with draft_of(folder) as draft:
            check_artifact(artifact)  # the layout is trusted from here on
            own = not is_as_stored(manifests.read(artifact).quantization)
            if own:
                runtime.lay_out(artifact / GRAPH, draft / GRAPH)
            files = {name: asdict(stored) for name, stored in record(draft).items()}
            measured = _measure(artifact, (draft if own else artifact) / GRAPH, threads)
            note = {"own": own, "files": files, **measured}
            (draft / _NOTE).write_text(json.dumps(note, indent=2), "utf-8")
            put_first(draft, folder)
    finally:
        let_go()


def _check_laid_out(artifact: Path, layout: Layout, cache: Path) -> None:
    """Check the graph and the weights that a layout was made from.

    They are not served, so remembered digests suffice: a change that no program made, by a failing
    disk, is noticed when they are next read.
    """
    if layout.graph.parent == artifact:
        return
    files, digests = manifests.read(artifact).files, Digests(cache)
    check_sizes(artifact, files)
    for name in files.keys() - {TOKENIZER}:
        if digests.of(artifact / name) != files[name].sha256:
            raise DamagedError(artifact / name, "does not match its recorded SHA-256")
    digests.remember()


def _sweep(cache: Path, artifact: Path, own: Path) -> None:
    """Remove the artifact's layouts that have long not been opened, except its `own`.

    A process that has one mapped keeps it until it unmaps it.
    """
    for note in cache.glob(f"{glob.escape(artifact.name)}-layout-*/{_NOTE}"):
        with suppress(OSError):  # another daemon may be sweeping, too
            old = time.time() - note.stat().st_mtime > _KEPT_SECONDS
            if note.parent != own and old and note.parent.lstat().st_uid == os.geteuid():
                clear(note.parent)


def _measure(artifact: Path, graph: Path, threads: int) -> dict[str, object]:
    """Measure whether more threads compute a row faster, and check that the bytes are the same."""
    manifest = manifests.read(artifact)
    many = f"{threads} threads"
    plain = session_of(artifact / GRAPH, manifest.quantization)
    sessions = {_ONE: session_of(graph, manifest.quantization)}
    if threads > 1:
        sessions[many] = session_of(graph, manifest.quantization, threads)
    rows = _rows(artifact)
    for session in sessions.values():
        if not all(_same(session, plain, row) for row in rows):
            raise ValueError("prepacked weights do not give the same bytes as the artifact")
    # Take the minimum: other load on the host slows threads that share a row more than it slows a
    # single thread, and may be gone later.
    speed = measure_speed(sessions, rows, min)
    wide = threads > 1 and _gains(speed[_ONE], speed[many])
    return {
        "threads": threads if wide else 1,
        "speed": {name: asdict(each) for name, each in speed.items()},
    }


def _gains(one: Speed, many: Speed) -> bool:
    return one.short_ms >= _LEAST_GAIN * many.short_ms and one.long_ms >= _LEAST_GAIN * many.long_ms


def _same(session: Session, plain: Session, row: Row) -> bool:
    inputs = row.ids[np.newaxis], row.token_types[np.newaxis]
    return session.run(*inputs).tobytes() == plain.run(*inputs).tobytes()


def _rows(artifact: Path) -> Sequence[Row]:
    """Return a probe of about each of the lengths in `_TOKENS`."""
    description = manifests.read(artifact).description
    tokenizer = Tokenizer(artifact / TOKENIZER, description.max_tokens)
    rows = tokenizer.rows(probe_inputs(description.task))
    return [_nearest(rows, tokens) for tokens in _TOKENS]


def _nearest(rows: Sequence[Row], tokens: int) -> Row:
    return min(rows, key=lambda row: abs(row.tokens - tokens))


def _read(folder: Path, artifact: Path) -> Layout:
    """Return the layout that `folder` describes. Raises `DamagedError` if it describes none."""
    path = folder / _NOTE
    refuse_untrusted(folder, owner=Owner.of_this_process())
    with loss_told(path):
        refuse_untrusted(path, owner=Owner.of_this_process())
    content = read_bytes(path)
    with suppress(OSError):  # a read-only cache serves, too
        os.utime(path)
    try:
        return _from_note(json.loads(content), folder, artifact)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(path, f"does not describe a layout ({error!r})") from error


def _from_note(note: dict[str, Any], folder: Path, artifact: Path) -> Layout:
    return Layout(
        graph=(folder if note["own"] else artifact) / GRAPH,
        threads=int(note["threads"]),
        speed={name: Speed(**each) for name, each in note["speed"].items()},
        files={name: Stored(**each) for name, each in note["files"].items()},
    )


def _is_whole(folder: Path, artifact: Path) -> bool:
    try:
        check(folder, _read(folder, artifact).files)
    except DamagedError:
        return False
    return True
