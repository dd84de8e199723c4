"""The prompts put before a model's texts, and the models that are known to need some.

The table is for folders that do not state the prompts that their models were trained with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from client_lib.wire.roles import ROLES, Role, role_prompt_name

Setting: TypeAlias = Literal["auto"] | Mapping[str, str]
"""Takes precedence over a folder's prompts: "auto", those of known models; or prompts by name."""
Source: TypeAlias = Literal["folder", "known models", "setting"]

_TEXTS = {"query": "queries", "document": "documents"}


def _before(query: str, document: str = "") -> Mapping[str, str]:
    documents = {"document": document} if document else {}
    return MappingProxyType({"query": query, **documents})


_TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query"
_E5 = _before("query: ", "passage: ")
_PASSAGES = _before("Represent this sentence for searching relevant passages: ")
_ARTICLES = _before("为这个句子生成表示以用于检索相关文章：")  # noqa: RUF001 - a Chinese colon
_NOMIC = _before("search_query: ", "search_document: ")
_GEMMA = _before("task: search result | query: ", "title: none | text: ")

# As in the model cards: huggingface.co/ORGANISATION/NAME.
KNOWN: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # intfloat: 'Each input text should start with "query: " or "passage: "'.
        "e5-small": _E5,
        "e5-base": _E5,
        "e5-large": _E5,
        "e5-small-v2": _E5,
        "e5-base-v2": _E5,
        "e5-large-v2": _E5,
        "multilingual-e5-small": _E5,
        "multilingual-e5-base": _E5,
        "multilingual-e5-large": _E5,
        # intfloat: "Instruct: {task_description}\nQuery: {query}", nothing before documents.
        "multilingual-e5-large-instruct": _before(f"{_TASK}\nQuery: "),
        # BAAI: "query instruction for retrieval" in the list of models, nothing before passages.
        "bge-small-en-v1.5": _PASSAGES,
        "bge-base-en-v1.5": _PASSAGES,
        "bge-large-en-v1.5": _PASSAGES,
        "bge-small-zh-v1.5": _ARTICLES,
        "bge-base-zh-v1.5": _ARTICLES,
        "bge-large-zh-v1.5": _ARTICLES,
        # mixedbread-ai: "you have to provide the prompt ... for query if you want to use it for
        # retrieval. Besides that you don't need any prompt."
        "mxbai-embed-large-v1": _PASSAGES,
        # Snowflake: `query_prefix`, and "query: " since version 2; nothing before documents.
        "snowflake-arctic-embed-xs": _PASSAGES,
        "snowflake-arctic-embed-s": _PASSAGES,
        "snowflake-arctic-embed-m": _PASSAGES,
        "snowflake-arctic-embed-l": _PASSAGES,
        "snowflake-arctic-embed-m-long": _PASSAGES,
        "snowflake-arctic-embed-m-v1.5": _PASSAGES,
        "snowflake-arctic-embed-m-v2.0": _before("query: "),
        "snowflake-arctic-embed-l-v2.0": _before("query: "),
        # nomic-ai: "the text prompt must include a task instruction prefix".
        "nomic-embed-text-v1": _NOMIC,
        "nomic-embed-text-v1.5": _NOMIC,
        # Qwen: "Instruct: {task_description}\nQuery:{query}", without a space.
        "qwen3-embedding-0.6b": _before(f"{_TASK}\nQuery:"),
        "qwen3-embedding-4b": _before(f"{_TASK}\nQuery:"),
        "qwen3-embedding-8b": _before(f"{_TASK}\nQuery:"),
        # google: "Prompt Instructions", retrieval of queries and of documents.
        "embeddinggemma-300m": _GEMMA,
        # Alibaba-NLP: "Instruct: {task_description}\nQuery: {query}", nothing before documents.
        "gte-qwen2-1.5b-instruct": _before(f"{_TASK}\nQuery: "),
        "gte-qwen2-7b-instruct": _before(f"{_TASK}\nQuery: "),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts put before a model's texts, by name, and where they come from.

    `default_name` is the prompt of a text with neither a prompt name nor a role. `missing` are the
    roles without a prompt, though the model is known to need one.
    """

    by_name: Mapping[str, str]
    default_name: str | None = None
    source: Source = "folder"
    missing: tuple[Role, ...] = ()

    def under(self, setting: Setting, names: Iterable[str]) -> "Prompts":
        """Return these, overridden by `setting`; the model may be known by any of `names`."""
        known = known_prompts(names)
        laid = known if setting == "auto" else setting
        by_name = {**self.by_name, **laid}
        source: Source = "known models" if setting == "auto" else "setting"
        return Prompts(
            by_name=by_name,
            default_name=self.default_name,
            source=source if laid else "folder",
            missing=tuple(r for r in ROLES if r in known and self._lacks(r, by_name, laid)),
        )

    def told(self) -> dict[str, Any]:
        """Return what `status` reports about them."""
        return {
            "prompts": dict(self.by_name),
            "default_prompt_name": self.default_name,
            "prompts_source": self.source,
            "prompts_missing": list(self.missing),
        }

    def _lacks(self, role: Role, by_name: Mapping[str, str], laid: Mapping[str, str]) -> bool:
        """Whether texts of `role` get no prompt, and the setting does not ask for that."""
        name = role_prompt_name(role, by_name) or self.default_name
        return name not in laid and not by_name.get(name or "")


def goes_without(roles: Iterable[str]) -> str:
    """Say in words that the model has no prompt for texts of `roles`, though it needs one."""
    texts = " and ".join(_TEXTS.get(role, role) for role in roles)
    return f"no prompt goes before {texts}, though the model was trained with one"


def known_prompts(names: Iterable[str]) -> Mapping[str, str]:
    """Return the prompts of the first of `names` that is in the table, or none.

    Names match by their last part, without a revision and ignoring case: a hub id with or without
    its organisation, or a folder named like the model. The base model that a folder states does not
    count: it may have been fine-tuned with other prompts.
    """
    for name in names:
        if found := KNOWN.get(Path(name.partition("@")[0]).name.lower()):
            return found
    return {}
