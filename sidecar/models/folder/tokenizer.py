"""The tokenizer that the library builds from a folder, as one JSON string for `tokenizers`.

`AutoTokenizer` picks a class, which builds a backend from the vocabulary, and then applies the
folder's other files. This module does the same, in the same order, without transformers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.processors import TemplateProcessing

from sidecar.models.errors import ModelError, UnknownArchitectureError
from sidecar.models.folder.added_tokens import AddedTokens, add_missing, read_added_tokens
from sidecar.models.folder.files import read_json
from sidecar.models.folder.settings import Settings, refused
from sidecar.models.folder.token_types import without_token_types
from sidecar.models.folder.tokenizer_classes import CLASSES, PLAIN, REGISTERED, TokenizerClass
from sidecar.models.folder.tokenizer_fields import NAMED, check_fields, check_templates
from sidecar.models.folder.vocabulary import read_vocabulary

FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder, its tokenizer.json, and tokenizer_config.json with its overrides applied."""

    folder: Path
    file: Mapping[str, Any] | None
    fields: Mapping[str, Any]


def assemble(folder: Path, settings: Settings, max_tokens: int) -> str:
    """Return the tokenizer of the model in `folder`, truncating at `max_tokens`, as JSON.

    `truncation` includes the side to cut. The post-processor sets token types if the library
    passes them to the model, and zeros otherwise. Raises `UnknownArchitectureError`, naming the
    file and the field or class, for anything unsupported.
    """
    source = _read(folder, settings)
    check_fields(folder / _CONFIG, source.fields)
    check_templates(folder, source.fields, settings)
    made = _class_of(folder, source.fields)
    try:
        tokenizer = _plain(source) if made is None else _built(made, source)
    except ModelError:
        raise
    except Exception as error:  # `tokenizers` raises bare Exception
        message = f"{folder}: the tokenizer cannot be built: {error}"
        raise UnknownArchitectureError(message) from error
    if settings.lower_case:
        _lower_case(tokenizer)
    return _sealed(tokenizer, max_tokens, _side(source), token_types=_has_types(made, source))


def from_library(tokenizer: Any, max_tokens: int) -> str:
    """Return a `tokenizer` that the library has loaded, in the form that `assemble` returns.

    Raises `UnknownArchitectureError` if `tokenizers` cannot represent it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.split_special_tokens:
        name = type(tokenizer).__name__
        raise UnknownArchitectureError(f"{name} cannot be written as a tokenizer.json")
    names = tokenizer.model_input_names
    side = tokenizer.truncation_side
    return _sealed(backend, max_tokens, side, token_types="token_type_ids" in names)


def tokenizer_fields(folder: Path, settings: Settings) -> Mapping[str, Any]:
    """Return the fields of tokenizer_config.json with the overrides in `settings` applied."""
    fields = read_json(folder, _CONFIG, optional=True)
    if not isinstance(fields, dict):
        raise ModelError(f"{folder / _CONFIG} is not a JSON object")
    return {**fields, **settings.tokenizer}


def _read(folder: Path, settings: Settings) -> _Source:
    file = read_json(folder, FILE, optional=True) or None
    return _Source(folder, file, tokenizer_fields(folder, settings))


def _class_of(folder: Path, fields: Mapping[str, Any]) -> TokenizerClass | None:
    config = read_json(folder, "config.json")
    stated = fields.get("tokenizer_class") or config.get("tokenizer_class")
    if config.get("processor_class"):
        raise refused(folder / "config.json", "processor_class", config["processor_class"])
    if (family := config.get("model_type")) not in REGISTERED:
        raise refused(folder / "config.json", "model_type", family)
    name = REGISTERED[family]
    if name != PLAIN and stated is not None:  # for PLAIN, the library ignores the stated class
        name = str(stated).removesuffix("Fast")
    if name not in CLASSES:
        raise refused(folder / _CONFIG, "tokenizer_class", stated)
    return CLASSES[name]


def _plain(source: _Source) -> Tokenizer:
    """Return tokenizer.json as it is, plus the tokens that only the other files define."""
    if source.file is None:
        message = f"{source.folder} has no {FILE}, which its tokenizer class needs"
        raise UnknownArchitectureError(message)
    tokenizer = Tokenizer.from_file(str(source.folder / FILE))
    padding = source.file.get("padding") or {}
    default = {"pad_token": padding["pad_token"]} if padding else {}
    tokens = read_added_tokens(source.folder, source.file, source.fields, default)
    add_missing(tokenizer, tokens)
    if tokenizer.post_processor is None:
        tokenizer.post_processor = TemplateProcessing(
            single="$A:0", pair="$A:0 $B:1", special_tokens=[]
        )
    return tokenizer


def _built(made: TokenizerClass, source: _Source) -> Tokenizer:
    tokens = read_added_tokens(source.folder, source.file, source.fields, {})
    stated = {**made.tokens, **tokens.named}
    for name in made.tokens:
        if not stated[name]:
            raise refused(source.folder / _CONFIG, name, stated[name])
    named = {name: made.as_added(name, token) for name in NAMED if (token := stated.get(name))}
    extra: Sequence[Any] = made.extra if tokens.extra is None else tokens.extra
    vocabulary = read_vocabulary(source.folder, made.model, source.file)
    tokenizer = made.backend(vocabulary, source.fields, named)
    add_missing(tokenizer, AddedTokens(named, tokens.specific, extra, tokens.by_id))
    tokenizer.post_processor = made.post_processor(tokenizer, named, source.fields)
    return tokenizer


def _lower_case(tokenizer: Tokenizer) -> None:
    """Lower-case every text first, as sentence-transformers' `do_lower_case` does."""
    own = tokenizer.normalizer
    if isinstance(own, Normalizers):
        parts = [own[index] for index in range(len(own))]
    else:
        parts = [] if own is None else [own]
    if not any(isinstance(part, Lowercase) for part in parts):
        tokenizer.normalizer = Normalizers([Lowercase(), *parts])


def _side(source: _Source) -> str:
    baked = (source.file or {}).get("truncation") or {}
    return str(source.fields.get("truncation_side", baked.get("direction", "right").lower()))


def _has_types(made: TokenizerClass | None, source: _Source) -> bool:
    names = source.fields.get("model_input_names")
    return "token_type_ids" in names if names else made is not None and made.token_types


def _sealed(tokenizer: Tokenizer, max_tokens: int, side: str, *, token_types: bool) -> str:
    # Edited as JSON: the library's own object must stay unchanged, and each time `tokenizers`
    # parses a Unigram's scores it may change their last bit.
    made = json.loads(tokenizer.to_str())
    made["padding"] = None
    made["truncation"] = {
        "direction": side.capitalize(),
        "max_length": max_tokens,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    if not token_types:
        made = without_token_types(made)
    return json.dumps(made, ensure_ascii=False)
