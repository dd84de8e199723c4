"""The table of known models, how a model is recognised, and which prompts take precedence."""

from pathlib import Path

import pytest

from sidecar.models.prompts import KNOWN, Prompts, goes_without, known_prompts

INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
PASSAGES = "Represent this sentence for searching relevant passages: "
# Every entry, by hub id: the prompts of a query and of a document.
ENTRIES = {
    "intfloat/e5-small": ("query: ", "passage: "),
    "intfloat/e5-base": ("query: ", "passage: "),
    "intfloat/e5-large": ("query: ", "passage: "),
    "intfloat/e5-small-v2": ("query: ", "passage: "),
    "intfloat/e5-base-v2": ("query: ", "passage: "),
    "intfloat/e5-large-v2": ("query: ", "passage: "),
    "intfloat/multilingual-e5-small": ("query: ", "passage: "),
    "intfloat/multilingual-e5-base": ("query: ", "passage: "),
    "intfloat/multilingual-e5-large": ("query: ", "passage: "),
    "intfloat/multilingual-e5-large-instruct": (INSTRUCT + "Query: ", ""),
    "BAAI/bge-small-en-v1.5": (PASSAGES, ""),
    "BAAI/bge-base-en-v1.5": (PASSAGES, ""),
    "BAAI/bge-large-en-v1.5": (PASSAGES, ""),
    "BAAI/bge-small-zh-v1.5": ("为这个句子生成表示以用于检索相关文章\uff1a", ""),
    "BAAI/bge-base-zh-v1.5": ("为这个句子生成表示以用于检索相关文章\uff1a", ""),
    "BAAI/bge-large-zh-v1.5": ("为这个句子生成表示以用于检索相关文章\uff1a", ""),
    "mixedbread-ai/mxbai-embed-large-v1": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-xs": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-s": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-m": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-l": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-m-long": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-m-v1.5": (PASSAGES, ""),
    "Snowflake/snowflake-arctic-embed-m-v2.0": ("query: ", ""),
    "Snowflake/snowflake-arctic-embed-l-v2.0": ("query: ", ""),
    "nomic-ai/nomic-embed-text-v1": ("search_query: ", "search_document: "),
    "nomic-ai/nomic-embed-text-v1.5": ("search_query: ", "search_document: "),
    "Qwen/Qwen3-Embedding-0.6B": (INSTRUCT + "Query:", ""),
    "Qwen/Qwen3-Embedding-4B": (INSTRUCT + "Query:", ""),
    "Qwen/Qwen3-Embedding-8B": (INSTRUCT + "Query:", ""),
    "google/embeddinggemma-300m": ("task: search result | query: ", "title: none | text: "),
    "Alibaba-NLP/gte-Qwen2-1.5B-instruct": (INSTRUCT + "Query: ", ""),
    "Alibaba-NLP/gte-Qwen2-7B-instruct": (INSTRUCT + "Query: ", ""),
}
PLAIN = Prompts(by_name={"query": "", "document": ""})
E5 = ("intfloat/e5-small-v2",)


def test_every_entry_is_as_its_card_says() -> None:
    """Every known model has the prompts of its model card, and there are no other entries."""
    for name, (query, document) in ENTRIES.items():
        prompts = PLAIN.under("auto", (name,))
        assert prompts.by_name == {"query": query, "document": document}, name
        assert (prompts.source, prompts.missing) == ("known models", ()), name
    assert {name.rpartition("/")[2].lower() for name in ENTRIES} == set(KNOWN)


def test_the_page_has_every_prompt() -> None:
    """docs/prompts.md lists every prompt of every known model, ready to copy."""
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text()
    shown = page.replace("\\|", "|").replace("TASK⏎", INSTRUCT.removeprefix("Instruct: "))
    for name, prompts in KNOWN.items():
        for text in prompts.values():
            assert f"`{text}`" in shown, name


@pytest.mark.parametrize(
    "name",
    [
        "e5-small-v2",
        "intfloat/E5-Small-v2",
        "mirror/e5-small-v2",
        "intfloat/e5-small-v2@refs/pr/3",
        "e5-small-v2@main",
    ],
)
def test_a_model_is_known_by_its_last_part(name: str) -> None:
    """A model is known by the last part of its name, whatever its owner, case or revision."""
    assert known_prompts((name,)) == KNOWN["e5-small-v2"]


def test_a_model_may_have_several_names() -> None:
    """Of a model's several names, the first known one counts."""
    names = ("int8", "bge-base-en-v1.5", "e5-small-v2")
    assert known_prompts(names) == KNOWN["bge-base-en-v1.5"]


@pytest.mark.parametrize("name", ["my-e5-small-v2", "e5-small-v2/onnx", "e5", "gte-base", ""])
def test_other_names_are_not_guessed_at(name: str) -> None:
    """Names that are only similar to a known model's get no prompts."""
    assert known_prompts((name,)) == {}
    prompts = PLAIN.under("auto", (name,))
    assert prompts == PLAIN


@pytest.mark.parametrize(
    ("stated", "setting", "expected", "source", "missing"),
    [
        # Only what the folder states, unless more is asked for.
        ({}, {}, ("", ""), "folder", ("query", "document")),
        ({"query": "Q: "}, {}, ("Q: ", ""), "folder", ("document",)),
        ({"query": "Q: ", "document": "D: "}, {}, ("Q: ", "D: "), "folder", ()),
        # The setting takes precedence over the folder, and so do the known models.
        ({"query": "Q: "}, "auto", ("query: ", "passage: "), "known models", ()),
        ({"query": "Q: "}, {"query": "S: "}, ("S: ", ""), "setting", ("document",)),
        ({"query": "Q: "}, {"document": "S: "}, ("Q: ", "S: "), "setting", ()),
        # An explicitly empty prompt is not missing.
        ({}, {"query": "", "document": ""}, ("", ""), "setting", ()),
        # The library always has "document", so "passage" is never used.
        ({"passage": "P: "}, {"query": "S: "}, ("S: ", ""), "setting", ("document",)),
    ],
)
def test_the_setting_is_laid_over_the_folder(
    stated: dict[str, str],
    setting: dict[str, str],
    expected: tuple[str, str],
    source: str,
    missing: tuple[str, ...],
) -> None:
    """The setting overrides the folder name by name; what a known model still lacks is reported."""
    prompts = Prompts(by_name={**PLAIN.by_name, **stated}).under(setting, E5)
    assert (prompts.by_name["query"], prompts.by_name["document"]) == expected
    assert (prompts.source, prompts.missing) == (source, missing)


def test_names_of_the_folder_stay() -> None:
    """The folder's other prompts and its default stay available, whatever is overridden."""
    stated = Prompts(by_name={"title": "t: ", "query": "Q: "}, default_name="title")
    prompts = stated.under({"query": "S: ", "other": "o: "}, ())
    assert prompts.by_name == {"title": "t: ", "query": "S: ", "other": "o: "}
    assert prompts.default_name == "title"


def test_a_default_prompt_goes_before_texts_of_a_role_that_has_none() -> None:
    """Texts of a role without a prompt get the default one, so that nothing is missing."""
    stated = Prompts(by_name={"all": "a: "}, default_name="all")
    assert stated.under({}, E5).missing == ()
    assert Prompts(by_name={"all": "a: "}).under({}, E5).missing == ("query", "document")


def test_a_model_that_needs_nothing_misses_nothing() -> None:
    """A model that needs no prompts misses none."""
    assert PLAIN.under({}, ("all-MiniLM-L6-v2",)).missing == ()
    assert PLAIN.under({}, ("bge-base-en-v1.5",)).missing == ("query",)


def test_what_goes_without_is_told_in_words() -> None:
    """Missing prompts are described in words, by the kinds of texts."""
    assert goes_without(("query", "document")).startswith("no prompt goes before queries and docum")
    assert goes_without(("query",)).startswith("no prompt goes before queries, though")
