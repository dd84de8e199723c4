"""`python -m bench fuzz`: what input bytes mean, and what it reports of a search."""

import base64
from pathlib import Path

import pytest

from bench.fuzz import Turn, page
from bench.fuzzing import corpus
from bench.fuzzing.findings import Finding, Findings, read
from bench.fuzzing.script import Postprocess, Send, script
from bench.fuzzing.search import Ended
from bench.fuzzing.source import Source
from bench.fuzzing.values import text
from client_lib.wire.codec import decode
from client_lib.wire.frames import HEADER_BYTES
from client_lib.wire.messages import Embed
from client_lib.wire.protocol import Limits, ServerConnection

WELL = Ended(inputs=1_000, edges=900, code=0, words="Done")


def data_of(*choices: int) -> bytes:
    return bytes(choices)


def test_no_bytes_are_a_peer_that_says_hello() -> None:
    """Empty input is a peer that sends hello and disconnects."""
    (hello,) = script(b"")
    assert isinstance(hello, Send)
    assert decode(hello.data[HEADER_BYTES:]) == {"op": "hello", "id": 0, "version": 1}


def test_a_few_bytes_are_a_valid_request() -> None:
    """A few zero bytes already form a valid request, so a fuzzer gets past the protocol."""
    steps = script(b"\0" * 12)
    connection = ServerConnection(Limits())
    received = [
        each for step in steps if isinstance(step, Send) for each in connection.receive(step.data)
    ]
    assert isinstance(received[1], Embed)


def test_the_same_bytes_are_the_same_script() -> None:
    """A script is deterministic and ends with its input or with a final step."""
    for seed in range(200):
        data = bytes((seed * i * 31 + i) % 256 for i in range(seed))
        steps = script(data)
        assert steps == script(data)
        assert not any(isinstance(step, Postprocess) for step in steps[:-1])
        assert sum(len(step.data) for step in steps if isinstance(step, Send)) < 2**25 + 100


def test_the_corpus_is_kept_as_it_is_read(tmp_path: Path) -> None:
    """The corpus survives writing and reading, without duplicates or empty inputs."""
    file = tmp_path / "data" / "corpus.txt"
    assert corpus.read(file) == []
    corpus.write(file, [b"\n\0\xff", b"", b"a", b"a"])
    assert corpus.read(file) == [b"a", b"\n\0\xff"]


def test_the_longest_inputs_are_left_out_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest inputs are left out if the corpus exceeds its size limit."""
    monkeypatch.setattr(corpus, "MOST_BYTES", 20)
    corpus.write(tmp_path / "corpus", [b"x" * 300, b"abc", b"def"])
    assert corpus.read(tmp_path / "corpus") == [b"abc", b"def"]


def test_a_kind_of_fault_is_noted_once_and_long_turns_are(tmp_path: Path) -> None:
    """Each kind of fault is recorded once, and each longest turn with its input."""
    findings = Findings(tmp_path / "findings")
    for number in range(3):
        findings.take(bytes([number]), ["at line 1\nKeyError: 'a'"], longest=0.1 * number)
    found = list(read(tmp_path / "findings"))
    assert [each.input for each in found if each.fault] == [b"\0"]
    assert [(each.input, each.longest) for each in found if not each.fault][-1] == (b"\2", 0.2)


@pytest.mark.parametrize(
    ("ended", "found", "turns", "failures"),
    [
        (WELL, [], [Turn(b"a", 0.005)], []),
        (WELL, [], [Turn(b"a", 0.001), Turn(b"b", 0.0061)], ["one peer holds the loop for 6.1 ms"]),
        (WELL, [Finding("", "", 0.9)], [], []),
        (WELL, [Finding("AA==", "KeyError", 0.0)], [], ["KeyError\n  by "]),
        (Ended(5, 9, 77, "deadly signal"), [], [], ["the search ended with 77: deadly signal"]),
        (Ended(0, 0, 0, ""), [], [], ["the search ended with 0"]),
    ],
)  # fmt: skip
def test_faults_and_long_turns_fail_it(
    ended: Ended, found: list[Finding], turns: list[Turn], failures: list[str]
) -> None:
    """Faults, long turns as replayed without instrumentation, and failed searches fail the run."""
    result = page(ended, found, turns, new=3, seed=1)
    assert len(result.failed) == len(failures)
    for failure, expected in zip(result.failed, failures, strict=True):
        assert failure.startswith(expected)


def test_the_longest_turn_is_told_with_its_input() -> None:
    """The longest turn is reported with its input in base64, for a replay."""
    result = page(WELL, [], [Turn(b"a", 0.001), Turn(b"bcd", 0.004)], new=0, seed=1)
    assert result.figures["longest turn of the loop, ms"] == pytest.approx(4)
    assert base64.b64decode(result.figures["its input, in base64"]) == b"bcd"
    assert [row[0] for row in result.tables[0].rows] == ["4", "1"]


def test_texts_are_strings_of_any_kind() -> None:
    """A few bytes may stand for a text of over a million characters."""
    assert len(text(Source(data_of(2, 0, 255)))) > 2**20
