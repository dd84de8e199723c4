"""`sidecar embed` through a scripted daemon: what is written, gone on from, and refused."""

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
    """Run the command; return its exit code and what it printed."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(["embed", *map(str, words), "--socket", str(fake.socket)])
        return code, *capsys.readouterr()

    return run


def fail_at(row: str, error: Exception) -> Callable[[Request], Any]:
    """Answer every request but the one that has this text."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and row in request.input:
            raise error
        return told(request)

    return script


def test_rows_are_written_in_order(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """As float32 [n, d]; a summary is printed, and nothing else is left."""
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
    """Each has the options of the command."""
    flags = ("--prompt-name", "a", "--role", "query", "--dimensions", "4", "--no-normalize")
    code, out, _ = embed(corpus, "-o", tmp_path / "out.npy", *flags)
    assert code == 0
    assert "1100 texts, 30 tokens" in out
    for request in fake.wait_for(Embed, 5):
        assert (request.priority, request.prompt_name, request.role) == ("bulk", "a", "query")
        assert (request.dimensions, request.normalize) == (4, False)


def test_an_output_is_not_replaced_unasked(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """--overwrite asks for it."""
    output = tmp_path / "out.npy"
    output.write_text("precious")
    code, _, err = embed(corpus, "-o", output)
    assert code == 78
    assert "out.npy is there already: --overwrite replaces it" in err
    assert output.read_text() == "precious"
    assert embed(corpus, "-o", output, "--overwrite")[0] == 0
    assert len(np.load(output)) == len(TEXTS)


def test_what_was_begun_is_gone_on_with(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """Texts that are there are not asked for again, and the result is that of one run."""
    output = tmp_path / "out.npy"
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    code, _, err = embed(corpus, "-o", output)
    assert code == 78
    assert "out of luck" in err
    assert f"512 of 1100 texts are in {output}.part: the same command goes on" in err
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
    """The message says what differs; --overwrite begins anew."""
    output = corpus.with_name("out.npy")
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", output)
    fake.script = told
    if named == "inputs":
        corpus.write_text(corpus.read_text().replace("3 text", "3 words"))
    code, _, err = embed(corpus, "-o", output, *flags)
    assert code == 78
    assert f"holds 512 of 1100 vectors, begun with different {named}: run that command" in err
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
    """The same model in another precision, or with other prompts, is another one."""

    def script(request: Request) -> Any:
        if isinstance(request, Status):
            return {"status": {"models": [{**MODEL, **changed}]}}
        return told(request)

    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", tmp_path / "out.npy")
    fake.script = script
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert (code, "begun with different model: run that" in err) == (78, True)


def test_a_wrong_line_is_told_before_the_work(embed: Run, tmp_path: Path, fake: FakeDaemon) -> None:
    """66, the place, no request and nothing left."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "one"}\n' * 3000 + '{"text": 1}\n')
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 66
    assert "corpus.jsonl:3001 holds int in 'text', not a text" in err
    assert not any(isinstance(request, Embed) for request in fake.seen)
    assert not list(tmp_path.glob("out*"))


def test_a_text_that_the_daemon_refuses_is_named(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """By its line, not by its place in a request."""
    fake.script = fail_at("300 text", BadRequest("a text that nobody understands", index=44))
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 66
    assert "corpus.txt:301: a text that nobody understands" in err


def test_a_text_over_the_daemon_s_limit_is_named(
    embed: Run, tmp_path: Path, fake: FakeDaemon
) -> None:
    """By its line, with its size, the limit, and what to do."""
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
    """Vectors of two models are never in one file."""

    def script(request: Request) -> Any:
        if isinstance(request, Embed) and "700 text" in request.input:
            return embed_body([vector(text) for text in request.input], model="other")
        return told(request)

    fake.script = script
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert code == 78
    assert "model 'fake' became 'other' in the middle" in err
    assert "512 of 1100 texts" in err


def test_no_texts_are_no_output(embed: Run, tmp_path: Path) -> None:
    """Nobody knows how wide its vectors would be."""
    (tmp_path / "corpus.txt").touch()
    code, _, err = embed(tmp_path / "corpus.txt", "-o", tmp_path / "out.npy")
    assert (code, "there are no texts in" in err) == (66, True)


def test_where_nobody_can_write_is_told(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """73, as for other files that a command writes."""
    code, _, err = embed(corpus, "-o", tmp_path / "none" / "out.npy")
    assert (code, "out.npy cannot be written: No such file" in err) == (73, True)


def test_no_daemon_is_told_at_once(
    embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon
) -> None:
    """69, before anything is read."""
    fake.stop()
    code, _, err = embed(corpus, "-o", tmp_path / "out.npy")
    assert (code, "no daemon answers at" in err) == (69, True)


def test_two_processes_do_not_write_one_output(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """The second one is told so."""
    output = tmp_path / "out.npy"
    with Part.hold(output) as part:
        code, _, err = embed(corpus, "-o", output)
        assert part.folder.exists()
    assert (code, "another process is writing" in err) == (78, True)


def test_what_is_not_ours_is_not_removed(embed: Run, corpus: Path, tmp_path: Path) -> None:
    """The folder's name may be somebody else's, too."""
    (tmp_path / "out.npy.part").mkdir()
    (tmp_path / "out.npy.part" / "precious").touch()
    assert embed(corpus, "-o", tmp_path / "out.npy", "--overwrite")[0] == 0
    assert [path.name for path in (tmp_path / "out.npy.part").iterdir()] == ["precious"]


def test_a_note_whose_vectors_are_gone_is_no_note(tmp_path: Path) -> None:
    """A process that ends between the last two steps leaves it."""
    with Part.hold(tmp_path / "out.npy") as part:
        part.begin(total=4, dimensions=2)
        part.keep(Note({}, total=4, rows=4))
        assert part.note() is not None
        (part.folder / "vectors.npy").unlink()
        assert part.note() is None


def test_parquet_has_the_columns_and_the_vectors(embed: Run, tmp_path: Path) -> None:
    """And is the same where the work was interrupted, or the writing alone."""
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
    """78; .npy of text files goes without."""
    monkeypatch.delitem(sys.modules, "sidecar.bulk.tables", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = embed(corpus, "-o", tmp_path / "out.parquet")
    assert code == 78
    assert "Parquet needs pyarrow: pip install 'sidecar[parquet]'" in err
    assert embed(corpus, "-o", tmp_path / "out.npy")[0] == 0


async def test_no_more_is_read_than_is_in_flight(fake: FakeDaemon, tmp_path: Path) -> None:
    """However long the corpus is, a few requests of it are in memory."""
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
    """What a daemon tells beside it may change."""
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
    assert (code, "begun with different model: run that" in err) == (78, True)


def test_all_that_differs_is_named(embed: Run, corpus: Path, fake: FakeDaemon) -> None:
    """In one line."""
    output = corpus.with_name("out.npy")
    fake.script = fail_at("700 text", BackendFailed("out of luck"))
    embed(corpus, "-o", output)
    corpus.write_text(corpus.read_text() + "more\n")
    _, _, err = embed(corpus, "-o", output, "--dimensions", "4")
    assert "begun with different inputs, options: run that" in err


def test_a_folder_is_no_output(embed: Run, corpus: Path, tmp_path: Path, fake: FakeDaemon) -> None:
    """Nor is a link that leads nowhere replaced unasked; no daemon is asked for it."""
    (tmp_path / "folder.npy").mkdir()
    code, _, err = embed(corpus, "-o", tmp_path / "folder.npy", "--overwrite")
    assert (code, "is a directory: name a file" in err) == (73, True)
    (tmp_path / "link.npy").symlink_to(tmp_path / "nowhere")
    code, _, err = embed(corpus, "-o", tmp_path / "link.npy")
    assert (code, "is there already" in err) == (78, True)
    assert fake.seen == []


def test_the_writing_of_a_table_is_shown(fake: FakeDaemon, tmp_path: Path) -> None:
    """Of all texts, those that are in it."""
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
