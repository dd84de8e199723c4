"""Lines of user-supplied files, which every reader splits in the same way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.bulk.corpus import Corpus
from sidecar.config import read_env_file
from sidecar.lines import numbered_lines, without_end
from sidecar.models.errors import ModelError
from sidecar.models.texts import read_texts
from sidecar.operate.evaluate.data import DataError, json_lines, lines
from sidecar.operate.records import Reading, from_files

BOM = "\ufeff"
# Every character except LF at which `str.splitlines` would split.
STRANGE = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def test_only_a_newline_ends_a_line(write: Callable[[str, str], Path]) -> None:
    """Only LF or CRLF ends a line, and a byte order mark at the start is removed."""
    path = write("a.txt", f"{BOM}{STRANGE}\r\n\n{BOM}last\r")
    numbered = [(number, without_end(line)) for number, line in numbered_lines(path, ValueError)]
    assert numbered == [(1, STRANGE), (2, ""), (3, f"{BOM}last")]


def test_what_cannot_be_read_is_the_callers_error(tmp_path: Path) -> None:
    """A file or line that cannot be read raises the caller's error, with file and line number."""
    with pytest.raises(KeyError, match="none cannot be read: No such file or directory"):
        list(numbered_lines(tmp_path / "none", KeyError))
    (tmp_path / "half").write_bytes(b"one\n\xc3\n")
    with pytest.raises(KeyError, match="half:2 is not UTF-8"):
        list(numbered_lines(tmp_path / "half", KeyError))


def test_texts_to_embed(write: Callable[[str, str], Path]) -> None:
    """Texts to embed are read alike from all formats, with CSV cells of any size."""
    long = "word " * 400_000
    paths = (
        write("a.txt", f"{BOM}{STRANGE}\r\nsecond"),
        write("a.jsonl", f'{BOM}{{"text": "a\u2028b"}}\r\n{{"text": "c"}}\n'),
        write("a.csv", f'{BOM}text,n\r\n"{long}",1\r\n"two\r\nlines\u2028",2\r\n'),
    )
    found = [row.text for row in Corpus(paths, "text").rows()]
    assert found == [STRANGE, "second", "a\u2028b", "c", long, "two\r\nlines\u2028"]


def test_texts_to_calibrate_on(write: Callable[[str, str], Path]) -> None:
    """Calibration texts are read alike from both formats; errors have the right line number."""
    rest = "".join(f"text {number}\n\n" for number in range(7))
    path = write("a.txt", f"{BOM}{STRANGE}\r\n{rest}")
    assert read_texts(path, "embed")[0] == STRANGE
    entries = "".join(f'{{"text": "text {number}"}}\n\n' for number in range(8))
    assert read_texts(write("a.jsonl", BOM + entries), "embed")[7] == "text 7"
    with pytest.raises(ModelError, match=r"b\.jsonl:17 is not JSON"):
        read_texts(write("b.jsonl", entries + "words\n"), "embed")
    with pytest.raises(ModelError, match=r"c\.jsonl:17 holds half a character"):
        read_texts(write("c.jsonl", entries + '{"text": "\\ud800"}\n'), "embed")


def test_data_to_evaluate_on(write: Callable[[str, str], Path]) -> None:
    """Evaluation data are read alike from tables and JSON lines."""
    table = write("a.tsv", f"{BOM}one\t{STRANGE}\r\n\ntwo\r\n")
    assert list(lines(table)) == [(1, f"one\t{STRANGE}"), (3, "two")]
    entries = write("a.jsonl", f'{BOM}{{"_id": "a\u2028"}}\n\n{{"_id": "b"}}\n')
    assert list(json_lines(entries)) == [(1, {"_id": "a\u2028"}), (3, {"_id": "b"})]
    with pytest.raises(DataError, match=r"none\.tsv cannot be read"):
        list(lines(table.with_name("none.tsv")))


def test_settings_in_a_file(write: Callable[[str, str], Path]) -> None:
    """A settings file may have a byte order mark and CRLF, as from an editor on Windows."""
    path = write("env", f'{BOM}SIDECAR_THREADS=3\r\nSIDECAR_SOCKET="/run/a\x85b"\r\n')
    assert read_env_file(path) == {"SIDECAR_THREADS": "3", "SIDECAR_SOCKET": "/run/a\x85b"}


def test_events_of_a_daemon(write: Callable[[str, str], Path]) -> None:
    """Events are read whole despite U+2028, including the first one after a byte order mark."""
    event = '{"ts": "2026-01-01T00:00:00+00:00", "event": "a\u2028b"}\n'
    reading = Reading()
    found = list(from_files([write("a.jsonl", BOM + event + event)], reading))
    assert [record.fields["event"] for record in found] == ["a\u2028b"] * 2
    assert reading.broken == 0


def test_an_error_without_a_number_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `OSError` without an errno is reported with its own text."""

    def fail(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(KeyError, match="a cannot be read: the disk is on fire"):
        list(numbered_lines(Path("a"), KeyError))


def test_only_what_ends_a_line_is_taken_away() -> None:
    """`without_end` removes exactly one line ending."""
    assert [without_end(line) for line in ("a\n", "a\r\n", "a\n\n", "a", "\r\n", "a \n")] == [
        "a", "a", "a\n", "a", "", "a ",
    ]  # fmt: skip


def test_only_the_first_line_begins_with_the_mark(write: Callable[[str, str], Path]) -> None:
    """Only the byte order mark at the start of a file is removed; the last line may lack an end."""
    path = write("a.txt", f"{BOM}{BOM}a\n\nb")
    assert list(numbered_lines(path, ValueError)) == [(1, f"{BOM}a\n"), (2, "\n"), (3, "b")]
