"""Prompts end to end: by setting, by role, by reload, and the warnings if they are missing."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client_lib import AsyncClient, BadRequest, Client

from .cli.command import prepare, sidecar
from .daemon import Configured, Daemon

pytestmark = pytest.mark.slow

MakeModel = Callable[..., Path]


@pytest.fixture
def client(prompted_daemon: Daemon) -> Iterator[Client]:
    with Client(prompted_daemon.socket) as client:
        yield client


def test_a_role_puts_its_prompt_before_each_text(client: Client) -> None:
    """A role adds its prompt to each text; `prompt_name` overrides it; by default none is added."""
    query, document, plain = client.encode(["query: a text", "passage: a text", "a text"])
    assert np.array_equal(client.encode("a text", role="query"), query)
    assert np.array_equal(client.embed("a text", role="document").vectors[0], document)
    assert np.array_equal(client.encode("a text"), plain)
    named = client.encode("a text", role="query", prompt_name="document")
    assert np.array_equal(named, document)
    assert np.array_equal(client.encode("a text", role="query", prompt_name="plain"), plain)
    with pytest.raises(BadRequest, match="'role' must be query or document"):
        client.encode("a text", role="passage")  # type: ignore[arg-type]


async def test_asyncio_has_the_same_roles(prompted_daemon: Daemon, client: Client) -> None:
    """The asyncio client supports roles in both calls."""
    query, document = client.encode(["query: a text", "passage: a text"])
    async with AsyncClient(prompted_daemon.socket) as own:
        assert np.array_equal(await own.encode("a text", role="query"), query)
        assert np.array_equal((await own.embed("a text", role="document")).vectors[0], document)


def test_an_embedding_model_reranks_by_the_same_prompts(client: Client) -> None:
    """Reranking by an embedding model uses the prompts for queries and for documents."""
    query, documents = "how do I renew a passport", ["bread rises", "passports are renewed"]
    expected = client.encode(documents, role="document") @ client.encode(query, role="query")
    found = {hit.index: hit.relevance_score for hit in client.rerank(query, documents).results}
    assert found == pytest.approx(dict(enumerate(expected.tolist())), abs=1e-6)


def test_status_tells_where_prompts_come_from(client: Client) -> None:
    """Status has all prompts and their source, and which ones are missing."""
    (model,) = client.status()["models"]
    assert model["prompts"] == {"query": "query: ", "document": "passage: ", "plain": ""}
    assert (model["prompts_source"], model["prompts_missing"]) == ("setting", [])


def test_a_reload_brings_other_prompts(minilm_artifact: Path, tmp_path: Path) -> None:
    """SIGHUP loads new prompts from the file; an invalid value leaves the old ones in effect."""
    with Configured(tmp_path, minilm_artifact) as daemon, Client(daemon.socket) as client:
        plain, expected = client.encode(["a text", "find: a text"])
        assert np.array_equal(client.encode("a text", role="query"), plain)
        daemon.write(minilm_artifact, SIDECAR_PROMPTS='\'{"query": "find: "}\'')
        daemon.hang_up()
        daemon.wait_for("engine.retired")
        assert daemon.events("server.reloaded")[-1]["changed"] == ["prompts"]
        assert np.array_equal(client.encode("a text", role="query"), expected)
        daemon.write(minilm_artifact, SIDECAR_PROMPTS='{"query": 1}')
        daemon.hang_up()
        daemon.wait_for("server.reload_failed")
        assert "SIDECAR_PROMPTS" in daemon.events("server.reload_failed")[-1]["reason"]
        assert np.array_equal(client.encode("a text", role="query"), expected)


def test_a_known_model_without_prompts_is_told_of_everywhere(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """Missing prompts are reported by an event, `status` and `doctor`, whose advice fixes it."""
    folder = shutil.copytree(make_model(), tmp_path / "e5-small-v2")
    prepare(folder, tmp_path / "cache")
    flags = ["--embedding-model", str(folder)]
    with Daemon(tmp_path, *flags) as daemon:
        (warned,) = daemon.events("model.prompts_missing")
        assert warned["roles"] == ["query", "document"]
        page = sidecar("status", "--socket", str(daemon.socket), COLUMNS="200").stdout
        assert "e5-small-v2  no prompt goes before queries and documents" in page
        report = sidecar("doctor", "--json", "--socket", str(daemon.socket), *flags)
    asked = ["doctor", "--json", "--socket", str(tmp_path / "none"), *flags]
    without = sidecar(*asked, "--cache-dir", str(tmp_path / "cache"))
    for done in (report, without):
        (found,) = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "prompts"]
        assert found["severity"] == "warning"
        assert "SIDECAR_PROMPTS=auto" in found["advice"]
    mended = sidecar(*asked, SIDECAR_PROMPTS="auto")
    assert not [f for f in json.loads(mended.stdout)["findings"] if f["check"] == "prompts"]
    with Daemon(tmp_path, *flags, "--prompts", "auto") as daemon, Client(daemon.socket) as client:
        query, document = client.encode(["query: a text", "passage: a text"])
        assert np.array_equal(client.encode("a text", role="query"), query)
        assert np.array_equal(client.encode("a text", role="document"), document)
        (model,) = client.status()["models"]
        assert model["prompts_source"] == "known models"
        # The log includes the event of the first start.
        assert len(daemon.events("model.prompts_missing")) == 1


def test_a_default_prompt_that_does_not_exist_is_one_line_and_78(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """An undefined default prompt exits with 78 and one line; the setting can define it."""
    folder = make_model()
    own = folder / "config_sentence_transformers.json"
    own.write_text('{"default_prompt_name": "passage"}')
    flags = ["--embedding-model", str(folder), "--cache-dir", str(tmp_path / "cache")]
    done = sidecar("serve", "--socket", str(tmp_path / "s"), *flags)
    assert done.returncode == 78
    assert f"{own}: default_prompt_name 'passage' is not one of its prompts" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    prepare(folder, tmp_path / "cache", SIDECAR_PROMPTS='{"passage": "p: "}')
    with (
        Daemon(
            tmp_path, "--embedding-model", str(folder), "--prompts", '{"passage": "p: "}'
        ) as daemon,
        Client(daemon.socket) as client,
    ):
        assert np.array_equal(client.encode("a text"), client.encode("p: a text", role="query"))
