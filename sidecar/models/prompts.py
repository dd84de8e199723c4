"""The prompts that go before a model's texts, and the models that are known to need some.

The table is for folders that do not state the prompts that their models were trained with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from client_lib.wire.roles import ROLES, Role, role_prompt_name

Setting: TypeAlias = Literal["auto"] | Mapping[str, str]
"""What is laid over a folder's prompts: those of the known models, or these, by name."""
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

# As the model cards have them: huggingface.co/ORGANISATION/NAME.
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
        # Qwen: "Instruct: {task_description}\nQuery:{query}", without a blank.
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
    """What goes before a model's texts, by name, and where that comes from.

    `default_name` is the prompt of a text without a name and a role. `missing` are the roles that
    get no prompt though the model is known to need one.
    """

    by_name: Mapping[str, str]
    default_name: str | None = None
    source: Source = "folder"
    missing: tuple[Role, ...] = ()

    def under(self, setting: Setting, names: Iterable[str]) -> "Prompts":
        """Return these with `setting` laid over them; the model may be known by any of `names`."""
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
        """Return what `status` says of them."""
        return {
            "prompts": dict(self.by_name),
            "default_prompt_name": self.default_name,
            "prompts_source": self.source,
            "prompts_missing": list(self.missing),
        }

    def _lacks(self, role: Role, by_name: Mapping[str, str], laid: Mapping[str, str]) -> bool:
        """Whether nothing goes before texts of `role`, and nobody has said so in the setting."""
        name = role_prompt_name(role, by_name) or self.default_name
        return name not in laid and not by_name.get(name or "")


def goes_without(roles: Iterable[str]) -> str:
    """Return in words that the model has no prompt for texts of `roles`, which it needs."""
    texts = " and ".join(_TEXTS.get(role, role) for role in roles)
    return f"nothing goes before {texts}, where the model was trained with a prompt"


def known_prompts(names: Iterable[str]) -> Mapping[str, str]:
    """Return the prompts of the first of `names` that is in the table, else none.

    A name is known by its last part, without a revision, in either case: a hub id with and
    without its organisation, a folder called as the model is. What a folder says of the model
    that it was trained from does not count: that may have been trained on with other prompts.
    """
    for name in names:
        if found := KNOWN.get(Path(name.partition("@")[0]).name.lower()):
            return found
    return {}
