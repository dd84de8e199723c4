"""`sidecar embed` with a scripted daemon: output, resumption and refusals."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_lib import AsyncClient, BackendFailed, BadRequest
from client_lib.encoding import WINDOW
from client_lib.wire.messages import Embed, Request, Status
from client_lib.wire.protocol import Limits
from sidecar.bulk.corpus import Corpus, Row
from sidecar.bulk.job import Job
from sidecar.bulk.part import Note, Part
from sidecar.bulk.stream import Stream
from sidecar.cli import main

from .world import DIMENSIONS, MODEL, FakeDaemon, embed_body, told, vector

TEXTS = [f"{number} text" for number in range(1100)]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def embed(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its exit code, stdout and stderr."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(["embed", *map(str, words), "--socket", str(fake.socket)])
        return code, *capsys.readouterr()

    return run


def fail_at(row: str, error: Exception) -> Callable[[Request], Any]:
    """Return a script that answers every request except the one with the text `row`."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and row in request.input:
            raise error
        return told(request)

    return script


def test_rows_are_written_in_order(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """Vectors are written in order as float32 [n, d], with a summary and no leftovers."""
    code, out, _ = embed(corpus, "-o", tmp_path / "out.npy", "--json")
    assert code == 0
    vectors = np.load(tmp_path / "out.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), DIMENSIONS))
    assert (vectors == [vector(text) for text in TEXTS]).all()
    summary = json.loads(out)
    assert summary.pop("seconds") >= 0
    assert summary == {
        "texts": 1100, "tokens": 5 * 6, "truncated": 0, "output": str(tmp_path / "out.npy"),
        "model": "fake", "quantization": "int8",
    }  # fmt: skip
    assert not (tmp_path / "out.npy.part").exists()


def test_requests_are_bulk_and_as_asked(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """Each request has bulk priority and the command's options."""
    flags = ("--prompt-name", "a", "--role", "query", "--dimensions", "4", "--no-normalize")
    code, out, _ = embed(corpus, "-o", tmp_path / "out.npy", *flags)
    assert code == 0
    assert "1100 texts, 30 tokens" in out
    for request in fake.wait_for(Embed, 5):
        assert (request.priority, request.prompt_name, request.role) == ("bulk", "a", "query")
        assert (request.dimensions, request.normalize) == (4, False)


def test_an_output_is_not_replaced_unasked(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """An existing output is replaced only with --overwrite."""
    output = tmp_path / "out.npy"
    output.write_text("precious")
    code, _, err = embed(corpus, "-o", output)
    assert code == 78
    assert "out.npy already exists: use --overwrite to replace it" in err
    assert output.read_text() == "precious"
    assert embed(corpus, "-o", output, "--overwrite")[0] == 0
    assert len(np.load(output)) == len(TEXTS)


def test_what_was_begun_is_gone_on_with(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """A resumed job requests only the missing texts, and the result equals that of one run."""
    output = tmp_path / "out.npy"
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    code, _, err = embed(corpus, "-o", output)
    assert code == 78
    assert "out of luck" in err
    assert f"512 of 1100 texts are in {output}.part: run the same command to resume" in err
    assert not output.exists()
    before, fake.script = len(fake.seen), told
    code, out, _ = embed(corpus, "-o", output, "--json")
    assert code == 0
    assert json.loads(out)["tokens"] == 5 * 6
    asked = [text for each in fake.seen[before:] if isinstance(each, Embed) for text in each.input]
    assert asked == TEXTS[512:]
    assert (np.load(output) == [vector(text) for text in TEXTS]).all()


@pytest.mark.parametrize(
    ("flags", "named"),
    [(["--dimensions", "4"], "options"), (["--field", "body"], "field"), ([], "inputs")],
)
def test_what_was_begun_with_something_else_is_refused(
    embed: Run, corpus: Path, fake: FakeDaemon, flags: list[str], named: str
) -> None:
    """Resuming with other inputs or options is refused, naming them; --overwrite starts over."""
    output = corpus.with_name("out.npy")
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", output)
    fake.script = told
    if named == "inputs":
        corpus.write_text(corpus.read_text().replace("3 text", "3 words"))
    code, _, err = embed(corpus, "-o", output, *flags)
    assert code == 78
    assert f"holds 512 of 1100 vectors, started with different {named}: repeat the" in err
    assert embed(corpus, "-o", output, *flags, "--overwrite")[0] == 0
    expected = [vector(text) for text in corpus.read_text().splitlines()]
    assert (np.load(output) == expected).all()


@pytest.mark.parametrize(
    "changed",
    [{"quantization": "int4"}, {"prompts": {"query": "q: "}}, {"default_prompt_name": "query"}],
)
def test_what_was_begun_by_another_model_is_refused(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon, changed: dict[str, Any]
) -> None:
    """Resuming is refused if the model's precision or prompts have changed."""

    def script(request: Request) -> Any:
        if isinstance(request, Status):
            return {"status": {"models": [{**MODEL, **changed}]}}
        return told(request)

    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", tmp_path / "out.npy")
    fake.script = script
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert (code, "started with different model: repeat" in err) == (78, True)


def test_a_wrong_line_is_told_before_the_work(embed: Run, tmp_path: Path, fake: FakeDaemon) -> None:
    """An invalid line exits with 66 and its location, before any request, leaving nothing."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "one"}\n' * 3000 + '{"text": 1}\n')
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 66
    assert "corpus.jsonl:3001 holds int in 'text', not a string" in err
    assert not any(isinstance(request, Embed) for request in fake.seen)
    assert not list(tmp_path.glob("out*"))


def test_a_text_that_the_daemon_refuses_is_named(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """A text that the daemon refuses is named by its line, not by its index in the request."""
    fake.script = fail_at("300 text", BadRequest("a text that nobody understands", index=44))
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 66
    assert "corpus.txt:301: a text that nobody understands" in err


def test_a_text_over_the_daemon_s_limit_is_named(
    embed: Run, tmp_path: Path, fake: FakeDaemon
) -> None:
    """A text that is too large is named by its line, with its size and the limit."""
    fake.limits = Limits(max_text_bytes=1_024)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("short\n" * 300 + "é" * 600 + "\n")
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 66
    assert "corpus.txt:301: embed: text " in err
    assert "of field 'input' is 1200 bytes; the limit for one text is 1024" in err


def test_another_model_in_the_middle_ends_it(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """The command ends if the model changes, so that no file mixes vectors of two models."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and "700 text" in request.input:
            return embed_body([vector(text) for text in request.input], model="other")
        return told(request)

    fake.script = script
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 78
    assert "model changed from 'fake' to 'other' during the run" in err
    assert "512 of 1100 texts" in err


def test_no_texts_are_no_output(embed: Run, tmp_path: Path) -> None:
    """An empty corpus is refused with 66, since the vectors' width would be unknown."""
    (tmp_path / "corpus.txt").touch()
    code, _, err = embed(tmp_path / "corpus.txt", "-o", tmp_path / "out.npy")
    assert (code, "no texts in" in err) == (66, True)


def test_where_nobody_can_write_is_told(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """An output that cannot be written exits with 73, as in other commands."""
    code, _, err = embed(corpus, "-o", tmp_path / "none" / "out.npy")
    assert (code, "out.npy cannot be written: No such file" in err) == (73, True)


def test_no_daemon_is_told_at_once(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """Without a daemon, the command exits with 69 before reading any input."""
    fake.stop()
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert (code, "no daemon answers at" in err) == (69, True)


def test_two_processes_do_not_write_one_output(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """A second process that writes to the same output is refused."""
    output = tmp_path / "out.npy"
    with Part.hold(output) as part:
        code, _, err = embed(corpus, "-o", output)
        assert part.folder.exists()
    assert (code, "another process is writing" in err) == (78, True)


def test_what_is_not_ours_is_not_removed(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """Files in OUT.part that are not part of the job are kept, and so is the folder."""
    (tmp_path / "out.npy.part").mkdir()
    (tmp_path / "out.npy.part" / "precious").touch()
    assert embed(corpus, "-o", tmp_path / "out.npy", "--overwrite")[0] == 0
    assert [path.name for path in (tmp_path / "out.npy.part").iterdir()] == ["precious"]


def test_a_note_whose_vectors_are_gone_is_no_note(tmp_path: Path) -> None:
    """A note without vectors, left by a kill between the last two steps, is ignored."""
    with Part.hold(tmp_path / "out.npy") as part:
        part.begin(total=4, dimensions=2)
        part.keep(Note({}, total=4, rows=4))
        assert part.note() is not None
        (part.folder / "vectors.npy").unlink()
        assert part.note() is None


def test_parquet_has_the_columns_and_the_vectors(embed: Run, tmp_path: Path) -> None:
    """A Parquet output has the input's columns and an `embedding` column."""
    pq = pytest.importorskip("pyarrow.parquet")
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert embed(corpus, "-o", tmp_path / "out.parquet")[0] == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.drop_columns("embedding").to_pylist() == rows
    assert table["embedding"].to_pylist() == [vector(text).tolist() for text in TEXTS]
    assert not (tmp_path / "out.parquet.part").exists()


def test_parquet_without_its_extra_says_what_to_install(
    embed: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet without pyarrow exits with 78 and the package to install; .npy needs none."""
    monkeypatch.delitem(sys.modules, "sidecar.bulk.tables", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = embed(corpus, "-o", tmp_path / "out.parquet")
    assert code == 78
    assert "Parquet needs pyarrow: pip install 'embedding-sidecar[parquet]'" in err
    assert embed(corpus, "-o", tmp_path / "out.npy")[0] == 0


async def test_no_more_is_read_than_is_in_flight(fake: FakeDaemon, tmp_path: Path) -> None:
    """Rows are read at most a window of requests ahead, however long the corpus is."""
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 10_241):
            yield Row(f"{read}", tmp_path, read)

    ahead: list[int] = []

    def show(_stage: str, done: int, _total: int) -> None:
        ahead.append(read - done)

    note = Note({"model": MODEL}, total=10_240)
    with Part.hold(tmp_path / "out.npy") as part:
        stream = Stream(part, note, show)
        async with AsyncClient(fake.socket) as client:
            await stream.run(client, rows(), {})
    assert stream.note.rows == 10_240
    assert max(ahead) <= WINDOW * 256


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"}, {"dimensions": 4}, {"device": "cuda"}, {"weight_bits": 7},
        {"kernel": "other"}, {"source_sha256": "other"},
    ],
)  # fmt: skip
def test_all_that_decides_a_vector_is_remembered(
    embed: Run, tmp_path: Path, fake: FakeDaemon, changed: dict[str, Any]
) -> None:
    """A change in any field that determines vectors prevents resuming; other fields may change."""
    corpus, output = tmp_path / "corpus.txt", tmp_path / "out.npy"
    corpus.write_text("\n".join(TEXTS[:300]))
    told_now = dict(MODEL)

    def script(request: Request) -> Any:
        if isinstance(request, Status):
            reranker = {"name": "r", "task": "rerank"}
            return {"status": {"models": [reranker, {**told_now, "seconds": len(fake.seen)}]}}
        if isinstance(request, Embed) and "299 text" in request.input and told_now == MODEL:
            raise BackendFailed("out of luck")
        return told(request)

    fake.script = script
    assert embed(corpus, "-o", output)[0] == 78
    told_now |= changed
    code, _, err = embed(corpus, "-o", output)
    assert (code, "started with different model: repeat" in err) == (78, True)


def test_all_that_differs_is_named(embed: Run, corpus: Path, fake: FakeDaemon) -> None:
    """Everything that differs from the earlier run is named in one message."""
    output = corpus.with_name("out.npy")
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", output)
    corpus.write_text(corpus.read_text() + "more\n")
    _, _, err = embed(corpus, "-o", output, "--dimensions", "4")
    assert "started with different inputs, options: repeat" in err


def test_a_folder_is_no_output(embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon) -> None:
    """A directory or a dangling symlink at the output is refused before any request."""
    (tmp_path / "folder.npy").mkdir()
    code, _, err = embed(corpus, "-o", tmp_path / "folder.npy", "--overwrite")
    assert (code, "is a directory: name a file" in err) == (73, True)
    (tmp_path / "link.npy").symlink_to(tmp_path / "nowhere")
    code, _, err = embed(corpus, "-o", tmp_path / "link.npy")
    assert (code, "already exists" in err) == (78, True)
    assert fake.seen == []


def test_the_writing_of_a_table_is_shown(fake: FakeDaemon, tmp_path: Path) -> None:
    """Progress covers embedding and then writing the table, each as texts done out of all."""
    pytest.importorskip("pyarrow")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS[:300]))
    shown: list[tuple[str, int, int]] = []
    job = Job(
        corpus=Corpus((tmp_path / "a.txt",), "text"), output=tmp_path / "out.parquet", options={},
        socket=fake.socket,
    )  # fmt: skip
    note = job.run(lambda *step: shown.append(step))
    assert (note.rows, note.total, note.tokens) == (300, 300, 12)
    assert shown == [
        ("embedding", 256, 300), ("embedding", 300, 300), ("writing", 300, 300),
    ]  # fmt: skip
