"""Token types, where the library hands none to the model: zeros, by the post-processor itself."""

from collections.abc import Mapping
from typing import Any

from sidecar.models.errors import UnknownArchitectureError


def without_token_types(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a tokenizer that gives type 0 to every token, and no other ids."""
    return {**tokenizer, "post_processor": _untyped(tokenizer["post_processor"])}


def _untyped(processor: Mapping[str, Any]) -> dict[str, Any]:
    kind = processor["type"]
    if kind == "Sequence":
        parts = [_untyped(part) for part in processor["processors"]]
        return {**processor, "processors": parts}
    if kind == "TemplateProcessing":
        single, pair = (_untyped_pieces(processor[key]) for key in ("single", "pair"))
        return {**processor, "single": single, "pair": pair}
    if kind == "BertProcessing":
        return _bert_template(processor["cls"], processor["sep"])
    if kind in {"RobertaProcessing", "ByteLevel"}:
        return dict(processor)
    raise UnknownArchitectureError(f"tokenizer.json: post-processor {kind} is not understood")


def _untyped_pieces(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{kind: {**piece, "type_id": 0} for kind, piece in each.items()} for each in pieces]


def _bert_template(cls: tuple[str, int], sep: tuple[str, int]) -> dict[str, Any]:
    def special(token: tuple[str, int]) -> dict[str, Any]:
        return {"SpecialToken": {"id": token[0], "type_id": 0}}

    def text(which: str) -> dict[str, Any]:
        return {"Sequence": {"id": which, "type_id": 0}}

    single = [special(cls), text("A"), special(sep)]
    tokens = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (cls, sep)}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B"), special(sep)],
        "special_tokens": tokens,
    }
