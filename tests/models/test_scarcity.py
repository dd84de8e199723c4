"""Disk or memory that runs out while preparing: exit code 75, and nothing left behind."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sidecar.host import read_host
from sidecar.models import prepare_subprocess, scarcity
from sidecar.models.errors import ModelError, TemporaryError, UnknownArchitectureError
from sidecar.models.precision import Precision
from sidecar.models.prepare_request import PrepareRequest
from sidecar.models.scarcity import scarcity_told

MakeModel = Callable[..., Path]

# Mounts a disk on a folder, runs a command that works in it, and lists what it left there.
_ON_A_SMALL_DISK = """
size=$1 folder=$2; shift 2
mount -t tmpfs -o size="$size" tmpfs "$folder" || exit 99
"$@"; code=$?
ls -A "$folder"
exit $code
"""


def on_a_small_disk(folder: Path, size: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `sidecar` with a disk of `size` on `folder`; its output is what is left there."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _ON_A_SMALL_DISK, "sh", size, str(folder),
         sys.executable, "-m", "sidecar", *command],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SIDECAR_DEVICE": "cpu"},
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("a test cannot mount a disk here")
    return done


@pytest.fixture
def order(tmp_path: Path) -> PrepareRequest:
    """A request that the process in `ending` does not carry out."""
    precision = Precision("int8", 8, 0.0)
    return PrepareRequest(
        folder=tmp_path, name="tiny", precision=precision, output=tmp_path / "out"
    )


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that has a shell script stand in for the process that prepares."""

    def end(script: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return end


@pytest.mark.slow
@pytest.mark.parametrize(("size", "quantize"), [("4k", "true"), ("1m", "true"), ("6m", "false")])
def test_a_full_disk_is_told_and_tried_again(
    make_model: MakeModel, tmp_path: Path, size: str, quantize: str
) -> None:
    """A full disk at any stage ends `prepare` with one line, exit code 75, and no draft."""
    command = ("prepare", str(make_model(vocab_size=30_522)), "--cache-dir", str(tmp_path))
    command += ("--use-quantization", quantize)
    done = on_a_small_disk(tmp_path, size, *command)
    assert (done.returncode, done.stdout) == (75, "")
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert "SIDECAR_CACHE_DIR" in line


@pytest.mark.slow
def test_a_full_disk_ends_a_start_in_the_same_way(make_model: MakeModel, tmp_path: Path) -> None:
    """A full disk ends a daemon's start in the same way, though another process prepares."""
    cache = tmp_path / "cache"
    cache.mkdir()
    flags = ("--cache-dir", str(cache), "--socket", str(tmp_path / "s"), "--log-level", "error")
    done = on_a_small_disk(cache, "1m", "serve", "--embedding-model", str(make_model()), *flags)
    assert (done.returncode, done.stdout) == (75, "")
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line


def test_a_process_that_was_killed_lacked_memory(
    order: PrepareRequest, ending: Callable[[str], None]
) -> None:
    """SIGKILL is reported as a lack of memory, with how much is needed and how much there is."""
    ending(f"mkdir {order.output.parent}/.out.draft-0123456789abcdef; kill -9 $$")
    with pytest.raises(TemporaryError, match=r"preparing tiny was killed, .* memory: .* MiB\)"):
        prepare_subprocess.prepare_in_subprocess(order)
    assert not list(order.output.parent.glob(".out.*"))


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo 'no: not read' >&2; exit 3", ModelError, "no: not read"),
        ("echo 'of no family' >&2; exit 4", UnknownArchitectureError, "of no family"),
        ("echo noise >&2; echo 'a full disk' >&2; exit 5", TemporaryError, "a full disk"),
        ("echo 'Traceback:\n KeyError: 1' >&2; exit 1", ModelError, "failed: *KeyError: 1"),
        ("exit 1", ModelError, "preparing tiny failed: exit code 1"),
        ("kill -TERM $$", ModelError, "preparing tiny was terminated by signal 15"),
    ],
)
def test_what_the_process_says_is_raised(
    order: PrepareRequest, ending: Callable[[str], None], script: str, kind: type, message: str
) -> None:
    """An error in the preparing process is raised as its own type, in one line."""
    ending(script)
    with pytest.raises(ModelError, match=message) as raised:
        prepare_subprocess.prepare_in_subprocess(order)
    assert type(raised.value) is kind
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_quotas_are_as_disks(tmp_path: Path, number: int) -> None:
    """An exhausted disk quota is reported like a full disk."""
    with (
        pytest.raises(TemporaryError, match="tiny cannot be prepared in"),
        scarcity_told("tiny", tmp_path),
    ):
        raise OSError(number, os.strerror(number))


def test_other_failures_of_files_are_no_scarcity(tmp_path: Path) -> None:
    """Other file errors, which do not resolve themselves, are not reported as temporary."""
    with pytest.raises(PermissionError), scarcity_told("tiny", tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_memory_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    """An allocation that is refused is reported as running out of memory."""
    with (
        pytest.raises(TemporaryError, match="preparing tiny ran out of memory"),
        scarcity_told("tiny", tmp_path),
    ):
        raise MemoryError


def test_what_there_is_of_memory_is_told_in_mebibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory limit is reported in MiB, as limits are set."""
    host = replace(read_host(), memory_bytes=3 * 2**30)
    monkeypatch.setattr(scarcity, "read_host", lambda: host)
    assert "(the limit here is 3,072 MiB)" in str(scarcity.killed("tiny"))


def test_an_order_reaches_the_process_as_it_was_given(tmp_path: Path) -> None:
    """A request reaches the process unchanged, with its texts, precision and paths."""
    precision = Precision("int4", weight_bits=8, floor=0.875)
    order = PrepareRequest(
        folder=tmp_path / "model", name="org/tiny", precision=precision,
        output=tmp_path / "out", texts=("one", "zwei ü"),
    )  # fmt: skip
    assert prepare_subprocess._order(json.dumps(asdict(order), default=str)) == order
