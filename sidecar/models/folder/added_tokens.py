"""Special and added tokens, collected from four files and added as in transformers."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from sidecar.models.folder.files import read_json
from sidecar.models.folder.settings import refused
from sidecar.models.folder.tokenizer_classes import Token
from sidecar.models.folder.tokenizer_fields import NAMED

_MAP = "special_tokens_map.json"
_ADDED = "added_tokens.json"
_CONFIG = "tokenizer_config.json"
_PARTS = {"content", "single_word", "lstrip", "rstrip", "normalized", "special"}
_DECODER = "added_tokens_decoder"
_EXTRA, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """A folder's special and added tokens.

    `named` holds the roles that every class has, `specific` the roles of this model only, and
    `extra` the special tokens without a role, None if the folder does not mention any. `by_id`
    holds the tokens listed with ids, special or not; the ids only determine their order.
    """

    named: Mapping[str, Token | None]
    specific: Mapping[str, Token]
    extra: Sequence[Token] | None
    by_id: Mapping[int, AddedToken]


def add_missing(tokenizer: Tokenizer, tokens: AddedTokens) -> None:
    """Add the tokens that `tokenizer` lacks, in the library's order, which determines their ids."""
    own = tokenizer.get_added_tokens_decoder()
    known = {repr(token) for token in own.values()}
    missing: list[Any] = [t for _, t in sorted(tokens.by_id.items()) if repr(t) not in known]
    present = {token.content for token in own.values()} | {str(token) for token in missing}
    special = [token for token in {**tokens.named, **tokens.specific}.values() if token is not None]
    for token in [*special, *(tokens.extra or ())]:
        if str(token) not in present and token not in missing:
            missing.append(token)
    names = {str(token) for token in special}
    tokenizer.add_tokens([_as_special(token, names) for token in missing])


def _as_special(token: Token, names: set[str]) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if str(token) in names:
        token.special = True
    return token


def read_added_tokens(
    folder: Path,
    file: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
    default: Mapping[str, str],
) -> AddedTokens:
    """Return the tokens of `folder`.

    `file` is its tokenizer.json and `fields` its tokenizer_config.json. `default` holds named
    tokens for roles that the folder does not define.
    """
    stated = {key: value for key, value in fields.items() if key.endswith(("_token", "_tokens"))}
    if not stated.get(_EXTRA) and _ADDITIONAL in stated:
        stated[_EXTRA] = stated.pop(_ADDITIONAL)
    specific = {key: stated.pop(key) for key in list(stated) if _is_specific(key, stated[key])}
    if isinstance(stated.get(_EXTRA), dict):
        specific |= stated.pop(_EXTRA)
    if _DECODER in fields:
        where = folder / _CONFIG, _DECODER
        by_id = {int(i): _added(*where, token) for i, token in fields[_DECODER].items()}
    else:
        _merge_map(stated, specific, folder)
        by_id = _listed(stated, folder, file)
    return _collected(folder, {**default, **stated}, specific, by_id)


def _is_specific(key: str, value: Any) -> bool:
    return key.endswith("_token") and key not in NAMED and isinstance(value, str)


def _merge_map(stated: dict[str, Any], specific: dict[str, Any], folder: Path) -> None:
    """Merge special_tokens_map.json, read only if the config has no added_tokens_decoder."""
    where = folder / _MAP
    for key, value in read_json(folder, _MAP, optional=True).items():
        if key not in {*NAMED, _EXTRA, _ADDITIONAL} and not key.endswith("_token"):
            raise refused(where, key, value)
        if key == _EXTRA and isinstance(value, list):
            stated[key] = _joined(where, stated.get(_EXTRA), value)
        elif isinstance(value, dict) and key != _EXTRA:
            stated[key] = _added(where, key, {**value, "special": True})
        else:
            stated[key] = value
    if isinstance(stated.get(_EXTRA), dict):
        specific |= stated.pop(_EXTRA)


def _joined(where: Path, before: Any, after: Sequence[Any]) -> list[Any]:
    joined = list(before or [])
    for token in after:
        typed = isinstance(token, dict)
        made = _added(where, _EXTRA, {**token, "special": True}) if typed else token
        if made not in joined:
            joined.append(made)
    return joined


def _listed(
    stated: Mapping[str, Any], folder: Path, file: Mapping[str, Any] | None
) -> dict[int, AddedToken]:
    """Return the tokens of added_tokens.json, overridden by those of tokenizer.json."""
    special = {str(stated[name]) for name in NAMED if stated.get(name)}
    special |= {str(token) for token in stated.get(_EXTRA) or ()}
    by_id = {
        int(number): AddedToken(text, normalized=text not in special, special=text in special)
        for text, number in read_json(folder, _ADDED, optional=True).items()
    }
    for token in (file or {}).get("added_tokens", ()):
        parts = {key: token[key] for key in token if key != "id"}
        by_id[token["id"]] = _added(folder / "tokenizer.json", "added_tokens", parts)
    return by_id


def _collected(
    folder: Path, stated: dict[str, Any], specific: dict[str, Any], by_id: dict[int, AddedToken]
) -> AddedTokens:
    stated = {key: _typed(folder, key, value) for key, value in stated.items()}
    specific = {key: _typed(folder, key, value) for key, value in specific.items()}
    if _EXTRA not in stated and _ADDITIONAL in stated:
        stated[_EXTRA] = stated[_ADDITIONAL]
    added = {str(token): token for token in by_id.values()}
    named = {key: added.get(str(stated[key]), stated[key]) for key in NAMED if key in stated}
    loose = {key: token for key, token in stated.items() if _is_loose(key, token)}
    extra = (stated[_EXTRA] or ()) if _EXTRA in stated else None
    for key, token in {**named, **specific}.items():
        _check(folder, key, [] if token is None else [token])
    _check(folder, _EXTRA, extra or ())
    return AddedTokens(named, {**loose, **specific}, extra, by_id)


def _is_loose(key: str, token: Any) -> bool:
    return key.endswith("_token") and key not in NAMED and isinstance(token, str | AddedToken)


def _check(folder: Path, key: str, tokens: Any) -> None:
    """Raise `UnknownArchitectureError` if the library would not accept `tokens` as tokens."""
    listed = isinstance(tokens, list | tuple)
    if not listed or not all(isinstance(token, str | AddedToken) for token in tokens):
        raise refused(folder / _CONFIG, key, tokens)


def _typed(folder: Path, key: str, value: Any) -> Any:
    """Return a JSON value with every serialised `AddedToken` in it decoded."""
    if isinstance(value, list):
        return [_typed(folder, key, each) for each in value]
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        parts = {name: value[name] for name in value if name != "__type"}
        return _added(folder / _CONFIG, key, parts)
    return value


def _added(where: Path, key: str, parts: Mapping[str, Any]) -> AddedToken:
    if isinstance(parts.get("content"), str) and set(parts) <= _PARTS:
        with suppress(TypeError):  # a flag that is not a boolean
            return AddedToken(**parts)
    raise refused(where, key, dict(parts))
