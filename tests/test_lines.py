"""Lines of files that people bring, and that every reader of them takes them in the same way."""

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
# Everything at which `str.splitlines` would split, but a newline does not end a line.
STRANGE = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def test_only_a_newline_ends_a_line(write: Callable[[str, str], Path]) -> None:
    """With a carriage return before it or without; the mark at the beginning is not text."""
    path = write("a.txt", f"{BOM}{STRANGE}\r\n\n{BOM}last\r")
    numbered = [(number, without_end(line)) for number, line in numbered_lines(path, ValueError)]
    assert numbered == [(1, STRANGE), (2, ""), (3, f"{BOM}last")]


def test_what_cannot_be_read_is_the_callers_error(tmp_path: Path) -> None:
    """With the file's name, and the line's number where there is one."""
    with pytest.raises(KeyError, match="none cannot be read: No such file or directory"):
        list(numbered_lines(tmp_path / "none", KeyError))
    (tmp_path / "half").write_bytes(b"one\n\xc3\n")
    with pytest.raises(KeyError, match="half:2 is not UTF-8"):
        list(numbered_lines(tmp_path / "half", KeyError))


def test_texts_to_embed(write: Callable[[str, str], Path]) -> None:
    """Of each format, with cells of any size."""
    long = "word " * 400_000
    paths = (
        write("a.txt", f"{BOM}{STRANGE}\r\nsecond"),
        write("a.jsonl", f'{BOM}{{"text": "a\u2028b"}}\r\n{{"text": "c"}}\n'),
        write("a.csv", f'{BOM}text,n\r\n"{long}",1\r\n"two\r\nlines\u2028",2\r\n'),
    )
    found = [row.text for row in Corpus(paths, "text").rows()]
    assert found == [STRANGE, "second", "a\u2028b", "c", long, "two\r\nlines\u2028"]


def test_texts_to_calibrate_on(write: Callable[[str, str], Path]) -> None:
    """Of both formats; a wrong line is named by its own number."""
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
    """Tables and JSON lines."""
    table = write("a.tsv", f"{BOM}one\t{STRANGE}\r\n\ntwo\r\n")
    assert list(lines(table)) == [(1, f"one\t{STRANGE}"), (3, "two")]
    entries = write("a.jsonl", f'{BOM}{{"_id": "a\u2028"}}\n\n{{"_id": "b"}}\n')
    assert list(json_lines(entries)) == [(1, {"_id": "a\u2028"}), (3, {"_id": "b"})]
    with pytest.raises(DataError, match=r"none\.tsv cannot be read"):
        list(lines(table.with_name("none.tsv")))


def test_settings_in_a_file(write: Callable[[str, str], Path]) -> None:
    """As an editor on Windows may have written them."""
    path = write("env", f'{BOM}SIDECAR_THREADS=3\r\nSIDECAR_SOCKET="/run/a\x85b"\r\n')
    assert read_env_file(path) == {"SIDECAR_THREADS": "3", "SIDECAR_SOCKET": "/run/a\x85b"}


def test_events_of_a_daemon(write: Callable[[str, str], Path]) -> None:
    """The first one, too."""
    event = '{"ts": "2026-01-01T00:00:00+00:00", "event": "a\u2028b"}\n'
    reading = Reading()
    found = list(from_files([write("a.jsonl", BOM + event + event)], reading))
    assert [record.fields["event"] for record in found] == ["a\u2028b"] * 2
    assert reading.broken == 0


def test_an_error_without_a_number_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every error of a file has a text of the system's."""

    def fail(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(KeyError, match="a cannot be read: the disk is on fire"):
        list(numbered_lines(Path("a"), KeyError))


def test_only_what_ends_a_line_is_taken_away() -> None:
    """Once."""
    assert [without_end(line) for line in ("a\n", "a\r\n", "a\n\n", "a", "\r\n", "a \n")] == [
        "a", "a", "a\n", "a", "", "a ",
    ]  # fmt: skip


def test_only_the_first_line_begins_with_the_mark(write: Callable[[str, str], Path]) -> None:
    """A line at a time is read; the last may have no end."""
    path = write("a.txt", f"{BOM}{BOM}a\n\nb")
    assert list(numbered_lines(path, ValueError)) == [(1, f"{BOM}a\n"), (2, "\n"), (3, "b")]
