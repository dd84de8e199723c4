"""Zero token types, set in the post-processor, for models that are not given any."""

from collections.abc import Mapping
from typing import Any

from sidecar.models.errors import UnknownArchitectureError


def without_token_types(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokenizer's JSON changed to give every token type 0, with the same ids.

    Raises `UnknownArchitectureError` for an unsupported post-processor.
    """
    own = tokenizer["post_processor"]
    parts = own["processors"] if own["type"] == "Sequence" else [own]
    untyped = [_untyped(part) for part in parts]
    if all(part["type"] == "ByteLevel" for part in parts):  # it keeps the types of a pair
        untyped.append(_template(single=[_text("A")], pair=[_text("A"), _text("B")], tokens={}))
    whole = untyped[0] if len(untyped) == 1 else {"type": "Sequence", "processors": untyped}
    return {**tokenizer, "post_processor": whole}


def _untyped(processor: Mapping[str, Any]) -> dict[str, Any]:
    kind = processor["type"]
    if kind == "TemplateProcessing":
        single, pair = (_untyped_pieces(processor[key]) for key in ("single", "pair"))
        return {**processor, "single": single, "pair": pair}
    if kind == "BertProcessing":
        return _bert_template(processor["cls"], processor["sep"])
    if kind in {"RobertaProcessing", "ByteLevel"}:  # the first sets only zeros, the second nothing
        return dict(processor)
    raise UnknownArchitectureError(f"tokenizer.json: post-processor {kind} is not supported")


def _untyped_pieces(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{kind: {**piece, "type_id": 0} for kind, piece in each.items()} for each in pieces]


def _bert_template(cls: tuple[str, int], sep: tuple[str, int]) -> dict[str, Any]:
    single = [_special(cls[0]), _text("A"), _special(sep[0])]
    pair = [*single, _text("B"), _special(sep[0])]
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (cls, sep)}
    return _template(single, pair, tokens)


def _template(
    single: list[dict[str, Any]], pair: list[dict[str, Any]], tokens: dict[str, Any]
) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def _special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def _text(which: str) -> dict[str, Any]:
    return {"Sequence": {"id": which, "type_id": 0}}
