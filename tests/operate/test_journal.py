"""Events in systemd's journal: the query for them, and how entries become events."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.events.journal import Journal
from sidecar.operate.journal import Asked, arguments, from_journal, record_of
from sidecar.operate.records import Reading, SourceError

JOURNALD = Path("/lib/systemd/systemd-journald")
NATIVE = {
    "__REALTIME_TIMESTAMP": "1795389895735733",
    "_PID": "7",
    "_SYSTEMD_UNIT": "sidecar.service",
    "SYSLOG_IDENTIFIER": "sidecar",
    "PRIORITY": "4",
    "MESSAGE": "peer.rejected peer_pid=3",
    "EVENT": "peer.rejected",
    "PEER_PID": "3",
    "REQUEST_ID": "null",
    "FATAL": "true",
    "CODE": "bad_request",
    "REASON": "12 is no text",
}


ASKED = Asked(uid=1000)


def entry(**fields: object) -> bytes:
    return json.dumps({"_UID": "1000", **fields}).encode()


def test_a_native_entry_is_the_event_that_was_written() -> None:
    """A native entry becomes the event, with typed fields and without the journal's own."""
    reading = Reading()
    record = record_of(entry(**NATIVE), reading, ASKED)
    assert record is not None
    assert record.at == pytest.approx(1795389895.735733)
    assert list(record.fields.items()) == [
        ("ts", "2026-11-22T23:24:55.735733+00:00"), ("level", "warning"),
        ("event", "peer.rejected"), ("peer_pid", 3), ("request_id", None), ("fatal", True),
        ("code", "bad_request"), ("reason", "12 is no text"),
    ]  # fmt: skip
    assert reading.broken == 0


def test_what_the_daemon_writes_is_what_is_read() -> None:
    """An event written to the journal is read back unchanged, in the same order of fields."""
    written = {
        "ts": "2026-11-22T23:24:55.735733+00:00", "level": "info", "event": "request.completed",
        "request_id": 7, "trace_id": "12345678901234567890123456789012",
        "parent_id": "1234567890123456", "total_ms": 1.5, "models": ["a", "b"], "fatal": False,
        "reason": "it failed",
    }  # fmt: skip
    with closing(Journal()) as journal:
        lines = journal.encode(written).decode().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    fields["__REALTIME_TIMESTAMP"] = "1795389895735733"
    record = record_of(entry(**fields), Reading(), ASKED)
    assert record is not None
    assert record.fields == written


def test_the_time_that_the_daemon_wrote_is_the_events() -> None:
    """The daemon's own time and level take precedence over the journal's."""
    ts = "2026-11-22T10:00:00.500000+00:00"
    record = record_of(entry(**NATIVE, TS=ts, LEVEL="error"), Reading(), ASKED)
    assert (record.fields["ts"], record.fields["level"]) == (ts, "error")
    assert record.at % 60 == 0.5


def test_an_events_own_message_is_kept() -> None:
    """The message of an event that defines one is kept."""
    changed = {**NATIVE, "EVENT": "loop.failed", "MESSAGE": "a callback raised"}
    assert record_of(entry(**changed), Reading(), ASKED).fields["message"] == "a callback raised"


def test_a_line_of_json_in_a_message_is_an_event() -> None:
    """A line of JSON in MESSAGE, as text or as bytes, is an event."""
    line = '{"ts":"2026-11-22T10:00:00+00:00","level":"info","event":"x","rows":3}'
    assert record_of(entry(MESSAGE=line), Reading(), ASKED).fields["rows"] == 3
    assert record_of(entry(MESSAGE=list(line.encode())), Reading(), ASKED).fields["rows"] == 3


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        (entry(MESSAGE="Started sidecar.service"), 0),
        (entry(MESSAGE=None), 0),
        (entry(), 0),
        (entry(MESSAGE='{"ts":"2026-11-22T10:00:00+00:00","ev'), 1),
        (entry(EVENT="x"), 1),
        (entry(EVENT="x", __REALTIME_TIMESTAMP="soon"), 1),
        (entry(**{**NATIVE, "PRIORITY": "9"}), 1),
        (entry(**{**NATIVE, "REASON": [1, 999]}), 1),
        (b"[]", 1),
        (b"-- No entries --", 1),
    ],
)
def test_what_is_no_event_is_passed_over(line: bytes, broken: int) -> None:
    """Other entries are skipped, and counted as broken only if they look like events."""
    reading = Reading()
    assert record_of(line, reading, ASKED) is None
    assert reading.broken == broken


def test_several_values_of_a_field_are_the_last() -> None:
    """Of several values the last is used, and bytes that are not text are replaced."""
    record = record_of(
        entry(**{**NATIVE, "CODE": ["a", "b"], "REASON": [104, 105, 255]}), Reading(), ASKED
    )
    assert (record.fields["code"], record.fields["reason"]) == ("b", "hi\ufffd")


@pytest.mark.parametrize(
    ("unit", "uid", "believed"),
    [
        ("sidecar.service", "61184", True),
        ("sidecar@minilm.service", "61184", True),
        ("sidecar-gateway.service", "61184", True),
        ("session-3.scope", "0", True),
        ("session-3.scope", "1000", True),
        ("session-3.scope", "1001", False),
        ("user@1001.service", "1001", False),
        ("not-sidecar.service", "1001", False),
        ("sidecar.service.d/x.service", "1001", False),
        (None, None, False),
    ],
)
def test_only_what_the_journal_says_of_a_writer_is_believed(
    unit: str | None, uid: str | None, believed: bool
) -> None:
    """Only entries of our units, of root, or of the asking user are trusted."""
    written = {**NATIVE, "_SYSTEMD_UNIT": unit, "_UID": uid, "PEER_UID": "1000"}
    line = '{"ts":"2026-11-22T10:00:00+00:00","level":"info","event":"x"}'
    for fields in (written, {"MESSAGE": line, "_SYSTEMD_UNIT": unit, "_UID": uid}):
        reading = Reading()
        assert (record_of(entry(**fields), reading, ASKED) is not None) == believed
        assert record_of(entry(**fields), reading, Asked(unit="mine.service")) is not None
        assert reading.broken == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(), ["--identifier=sidecar"]),
        (Asked(unit="mine.service"), ["--unit=mine.service"]),
        (Asked(since=1.5, until=2.5), ["--identifier=sidecar", "--since=@1", "--until=@3"]),
        (Asked(events=["a.*"]), ["--identifier=sidecar"]),
        (
            Asked(events=["a.b", "c.d"]),
            ["--identifier=sidecar", "EVENT=a.b", "EVENT=c.d", "+", "_TRANSPORT=stdout"],
        ),
        (Asked(follow=True), ["--identifier=sidecar", "--follow", "--lines=all"]),
    ],
)
def test_the_journal_leaves_out_what_it_can(asked: Asked, words: list[str]) -> None:
    """journalctl's arguments filter as far as possible, and never exclude a match."""
    assert arguments(asked)[4:] == words


# A separate mount namespace keeps the host's journal untouched.
_IN_A_JOURNAL = """
for place in /run/systemd /run/log /var/log; do mount -t tmpfs none $place; done
{journald} & trap "kill $!" EXIT
{python} - <<'END' || exit 1
import os, pathlib, socket, time
path = pathlib.Path("/run/systemd/journal")
deadline = time.monotonic() + 30
while not (path / "stdout").exists() and time.monotonic() < deadline:
    time.sleep(0.01)
native = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
native.connect(str(path / "socket"))
for number in range(3):
    fields = f"EVENT=batch.completed\\nROWS={{number}}\\nPRIORITY=6\\nSYSLOG_IDENTIFIER=sidecar\\n"
    native.send(fields.encode())
native.send(b"EVENT=batch.completed\\nROWS=9\\nPRIORITY=6\\nSYSLOG_IDENTIFIER=another\\n")
if (child := os.fork()) == 0:
    os.setuid(65534)
    forged = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    forged.connect(str(path / "socket"))
    forged.send(b"EVENT=batch.completed\\nROWS=6\\nPRIORITY=6\\nSYSLOG_IDENTIFIER=sidecar\\n")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
out = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
out.connect(str(path / "stdout"))
out.send(b"sidecar\\n\\n6\\n0\\n0\\n0\\n0\\n")
out.send(b'{{"ts":"2026-11-22T10:00:00+00:00","level":"info","event":"batch.completed","rows":7}}\\n')
out.close()
END
journalctl --sync
{python} -m sidecar logs --json --fields rows --event batch.completed
"""


@pytest.mark.slow
def test_a_real_journal_is_read(tmp_path: Path) -> None:
    """A real journal yields the daemon's native and stdout events, and no other user's."""
    if not JOURNALD.exists() or shutil.which("unshare") is None:
        pytest.skip("no systemd-journald here")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace may be made here")
    script = _IN_A_JOURNAL.format(journald=JOURNALD, python=sys.executable)
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-e", "-c", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["rows"] for line in done.stdout.splitlines()]
    assert sorted(found) == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("priority", "level"),
    list(enumerate(("critical", "critical", "critical", "error", "warning", "info", "info",
                    "debug"))),
)  # fmt: skip
def test_the_level_is_that_of_the_priority(priority: int, level: str) -> None:
    """The level follows from the syslog priority, and is info without one."""
    entered = {**NATIVE, "PRIORITY": str(priority)}
    assert record_of(entry(**entered), Reading(), ASKED).fields["level"] == level
    del entered["PRIORITY"]
    assert record_of(entry(**entered), Reading(), ASKED).fields["level"] == "info"


def test_what_is_the_journals_own_is_left_out() -> None:
    """The journal's own fields are left out by name, and ids stay text."""
    own = {"SYSLOG_PID": "7", "CODE_FILE": "x", "_BOOT_ID": "x", "MESSAGE_ID": "x", "TID": "7"}
    ids = {"TRACE_ID": "12", "PARENT_ID": "34"}
    fields = record_of(entry(**NATIVE, **own, **ids), Reading(), ASKED).fields
    assert set(fields) == {
        "ts", "level", "event", "peer_pid", "request_id", "fatal", "code", "reason", "trace_id",
        "parent_id",
    }  # fmt: skip
    assert (fields["trace_id"], fields["parent_id"]) == ("12", "34")


def test_an_event_that_is_not_known_keeps_its_message() -> None:
    """An unknown event keeps its message, which may be one of its fields."""
    entered = {**NATIVE, "EVENT": "some.thing"}
    fields = record_of(entry(**entered), Reading(), ASKED).fields
    assert fields["message"] == "peer.rejected peer_pid=3"


class _Journalctl:
    """A stand-in for journalctl: a script that records its arguments and prints `entries`."""

    def __init__(self, folder: Path, header: str, entries: list[bytes]) -> None:
        (folder / "entries").write_bytes(b"\n".join([*entries, b""]))
        self.program = folder / "journalctl"
        self.program.write_text(
            f'#!/bin/sh\n[ "$1" = --header ] && {{ printf "%s" "{header}"; exit; }}\n'
            f'echo "$@" > {folder}/asked\ncat {folder}/entries\n'
        )
        self.program.chmod(0o755)

    def asked(self) -> str:
        return self.program.with_name("asked").read_text().strip()


def test_the_journal_is_asked_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are read in the journal's order, and events and broken ones are counted."""
    later = {**NATIVE, "__REALTIME_TIMESTAMP": "1795389895000000"}
    entries = [entry(**NATIVE), b"what", entry(**later), entry(MESSAGE="Started")]
    journalctl = _Journalctl(tmp_path, "File path: /var/log", entries)
    monkeypatch.setattr(shutil, "which", {"journalctl": str(journalctl.program)}.get)
    reading = Reading()
    found = list(from_journal(Asked(uid=1000, since=5.0), reading))
    assert [record.at for record in found] == pytest.approx([1795389895.735733, 1795389895])
    assert (reading.records, reading.broken, reading.first_broken) == (2, 1, "the journal")
    assert journalctl.asked() == (
        "--output=json --all --no-pager --quiet --identifier=sidecar --since=@5"
    )


def test_a_host_without_a_journal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without journalctl, or without a readable journal, the error suggests --file."""
    programs: list[str | None] = [None, str(_Journalctl(tmp_path, "", []).program)]
    for program in programs:
        monkeypatch.setattr(shutil, "which", {"journalctl": program}.get)
        with pytest.raises(SourceError, match="there is no journal on this host: name files"):
            next(from_journal(Asked(), Reading()))


def test_who_asks_is_believed() -> None:
    """The trusted user is the effective one by default."""
    assert Asked().uid == os.geteuid()
