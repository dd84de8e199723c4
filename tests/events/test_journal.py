"""The native journal protocol, with the test's own socket and with a real journald."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sidecar.events.catalogue import CATALOGUE
from sidecar.events.journal import Journal, is_standard_output

RECORD = {"ts": "2026-01-02T03:04:05.000006+00:00", "level": "info", "event": "request.completed"}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "journal"))
        sock.settimeout(30)
        yield sock


def read(entry: bytes) -> dict[str, str]:
    """Parse an entry as the protocol defines it."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


def sent(receiver: socket.socket, **fields: Any) -> dict[str, str]:
    """Send a record with these fields, and return the fields of the entry received."""
    with closing(Journal(Path(receiver.getsockname()))) as journal:
        assert journal.write([journal.encode({**RECORD, **fields})]) == 0
    data, descriptors, *_ = socket.recv_fds(receiver, 2**20, 1)
    for descriptor in descriptors:
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            data += file.read()
    return read(data)


def test_every_field_is_one_of_the_entry(receiver: socket.socket) -> None:
    """Every field is sent with its name in upper case; lists and maps are encoded as JSON."""
    fields = sent(receiver, rows=3, total_ms=4.5, layers=["a", "b"], failed={"x": 1}, fatal=True)
    assert fields["EVENT"] == "request.completed"
    assert (fields["LEVEL"], fields["TS"]) == ("info", RECORD["ts"])
    assert (fields["ROWS"], fields["TOTAL_MS"], fields["FATAL"]) == ("3", "4.5", "true")
    assert (fields["LAYERS"], fields["FAILED"]) == ('["a","b"]', '{"x":1}')


def test_people_have_a_line_to_read(receiver: socket.socket) -> None:
    """MESSAGE is the event with its fields on one line, with an identifier and a priority."""
    fields = sent(receiver, rows=3, traceback="a\nb")
    assert fields["MESSAGE"] == "request.completed rows=3"
    assert (fields["SYSLOG_IDENTIFIER"], fields["PRIORITY"]) == ("sidecar", "6")
    assert sent(receiver, level="error")["PRIORITY"] == "3"


def test_an_event_s_own_sentence_is_its_line(receiver: socket.socket) -> None:
    """An event's own `message` becomes the entry's MESSAGE."""
    assert sent(receiver, message="Applied int8 quantization")["MESSAGE"].startswith("Applied")


@pytest.mark.parametrize("value", ["a\nb", "\n", "a=b\nC=d\n", "ä\n猫"])
def test_a_value_of_several_lines_arrives_whole(receiver: socket.socket, value: str) -> None:
    """A multi-line value is sent unchanged, and cannot inject another field."""
    fields = sent(receiver, traceback=value)
    assert fields["TRACEBACK"] == value
    assert "C" not in fields


def test_an_entry_longer_than_a_datagram_arrives(receiver: socket.socket) -> None:
    """An entry too long for a datagram is sent as a memfd."""
    text = "x" * 2_000_000
    assert sent(receiver, traceback=text)["TRACEBACK"] == text


def test_a_path_that_is_not_unicode_does_no_harm(receiver: socket.socket) -> None:
    """A path that is not valid Unicode is sent with escapes."""
    assert sent(receiver, socket="/run/\udcff")["SOCKET"] == "/run/\\udcff"


def test_what_nobody_takes_is_counted(tmp_path: Path) -> None:
    """If there is no journal, writing counts the entries as lost instead of failing."""
    with closing(Journal(tmp_path / "gone")) as journal:
        assert journal.write([journal.encode(RECORD)] * 2) == 2


def test_no_field_has_a_name_that_the_journal_uses() -> None:
    """No event has a field that would collide with one of the journal's own."""
    names = {name.upper() for event in CATALOGUE.values() for name in event.fields}
    assert not names & {"PRIORITY", "SYSLOG_IDENTIFIER", "EVENT", "LEVEL", "TS"}
    assert all(name.replace("_", "").isalnum() and name[0].isalpha() for name in names)


def stream_of(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def test_standard_output_is_the_journal_s_where_it_is_named(tmp_path: Path) -> None:
    """Standard output is the journal's only if $JOURNAL_STREAM has its device and inode."""
    out, err = socket.socketpair()
    with out, err, (tmp_path / "log").open("w") as file:
        named = {"JOURNAL_STREAM": stream_of(out.fileno())}
        assert is_standard_output(named, out.fileno(), err.fileno())
        assert not is_standard_output(named, file.fileno(), err.fileno())
        assert not is_standard_output({}, out.fileno(), err.fileno())
        # If the two differ, the variable names standard error.
        assert is_standard_output(named, err.fileno(), out.fileno())
        assert not is_standard_output(named, file.fileno(), out.fileno())
    assert not is_standard_output(named, -1, -1)


JOURNALD = Path("/lib/systemd/systemd-journald")
NEEDED = ("unshare", "journalctl", "systemd-cat")
# Run a private journald in a mount namespace while the command runs.
ALONE = """
for place in /run/systemd /run/log /var/log; do mount -t tmpfs none $place || exit 77; done
"$0" & journald=$!
for _ in $(seq 600); do [ -S /run/systemd/journal/socket ] && break; sleep 0.05; done
"$@" && journalctl --sync && journalctl --identifier=sidecar --all --output=json
code=$?
kill $journald; wait $journald
exit $code
"""
SPEAK = """
import os
from sidecar import events
from sidecar.events import journal
status = os.fstat(1)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
assert journal.is_standard_output(os.environ)
events.configure(journal.Journal())
events.log.info("quantization.applied", model="m", bytes_after=4, message="Applied it")
events.log.error("peer.failed", peer_pid=1, traceback="a\\nb")
events.log.error("peer.failed", peer_pid=2, traceback="x" * 900_000)
"""


def test_a_real_journal_can_be_asked_for_every_field() -> None:
    """A real journald returns every field of the entries sent to it under systemd-cat."""
    if os.geteuid() or not JOURNALD.exists() or not all(map(shutil.which, NEEDED)):
        pytest.skip("needs root, unshare and systemd's journal")
    if not Path("/run/systemd").is_dir() or stat.S_ISLNK(os.lstat("/var/log").st_mode):
        pytest.skip("this host has no /run/systemd to put a journal into")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", ALONE, str(JOURNALD),
         "systemd-cat", "--stderr-priority=err", sys.executable, "-c", SPEAK],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no mount namespace on this host: {done.stderr.strip()}")
    applied, short, long = map(json.loads, done.stdout.splitlines())
    assert (applied["EVENT"], applied["MODEL"]) == ("quantization.applied", "m")
    assert (applied["MESSAGE"], applied["BYTES_AFTER"]) == ("Applied it", "4")
    assert (short["PRIORITY"], short["TRACEBACK"]) == ("3", "a\nb")
    assert long["TRACEBACK"] == "x" * 900_000


@pytest.mark.parametrize(
    ("level", "priority"),
    [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7")],
)
def test_each_level_has_a_priority(receiver: socket.socket, level: str, priority: str) -> None:
    """Each level is sent with its priority from syslog(3)."""
    fields = sent(receiver, level=level)
    assert (fields["PRIORITY"], fields["LEVEL"]) == (priority, level)


def test_the_line_for_people_has_all_but_the_head(receiver: socket.socket) -> None:
    """MESSAGE has all fields in order, except the traceback, which only has its own field."""
    fields = sent(receiver, model="m x", rows=0, layers=[], fatal=False, traceback="a")
    assert fields["MESSAGE"] == "request.completed model=m x rows=0 layers=[] fatal=false"
    assert fields["TRACEBACK"] == "a"


def test_values_of_many_lines_are_measured_in_bytes(receiver: socket.socket) -> None:
    """The length of a multi-line value is in bytes, so that the next field is found."""
    fields = sent(receiver, reason="ä\nö", code="x", path="\n")
    assert (fields["REASON"], fields["CODE"], fields["PATH"]) == ("ä\nö", "x", "\n")


def test_what_one_entry_lacks_the_others_do_not(
    receiver: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the entries that could not be sent are counted as lost."""
    taken = Journal(Path(receiver.getsockname()))
    with closing(taken) as journal:
        monkeypatch.setattr(journal, "_send", lambda entry: entry != b"bad")
        assert journal.write([b"good", b"bad", b"good", b"bad", b"bad"]) == 3
