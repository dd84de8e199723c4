"""The fields of tokenizer_config.json: what each does, and which are refused.

Nothing is ignored in silence: a field is applied, or stands here as one that changes no id, or
the folder is refused by its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.models.folder.settings import Settings, refused

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The special tokens that every class knows, in the library's order: new ids follow it."""

_SIDES = ("left", "right")
_FLAGS = (True, False)
# Applied, with the values that the library takes; None: any, checked where it is used.
_APPLIED: Mapping[str, tuple[Any, ...] | None] = {
    "tokenizer_class": None,
    "added_tokens_decoder": None,
    "additional_special_tokens": None,
    "extra_special_tokens": None,
    "model_max_length": None,
    "max_len": None,
    "model_input_names": None,
    "truncation_side": _SIDES,
    "do_lower_case": _FLAGS,
    "tokenize_chinese_chars": _FLAGS,
    "strip_accents": (None, *_FLAGS),
    "add_prefix_space": _FLAGS,
    "trim_offsets": _FLAGS,
    # The library takes these tokens for text then, which no tokenizer.json can say.
    "split_special_tokens": (False,),
}
# Known to change no id, with the values that are.
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...] | None] = {
    "padding_side": _SIDES,  # rows are never padded here
    "pad_to_multiple_of": None,
    "pad_token_type_id": None,
    "padding": None,
    # Decoding.
    "clean_up_tokenization_spaces": None,
    "errors": None,
    "decode_with_prefix_space": None,
    # Arguments of a call, which sentence-transformers makes by itself.
    "max_length": None,
    "stride": None,
    "truncation": None,
    "truncation_strategy": None,
    # Chats; a folder whose texts would become one is refused by `check_templates`.
    "chat_template": None,
    "response_schema": None,
    # Of the classes before version 5 that did without `tokenizers`.
    "do_basic_tokenize": None,
    "never_split": None,
    "sp_model_kwargs": None,
    "legacy": None,
    "use_fast": None,
    "from_slow": None,
    "keep_accents": None,
    "remove_space": None,
    # Where the files once lay: the library takes those of the folder.
    "name_or_path": None,
    "vocab_file": None,
    "tokenizer_file": None,
    "special_tokens_map_file": None,
    "is_local": None,
    "local_files_only": None,
    # What wrote the folder.
    "backend": None,
    "files_loaded": None,
    "transformers_version": None,
    "_commit_hash": None,
    "verbose": None,
    "init_inputs": ((), []),
    # Only without a tokenizer.json, and every class that is built then sets its own.
    "add_bos_token": None,
    "add_eos_token": None,
    "auto_map": (None, {}),
    "processor_class": (None,),
}
_INPUTS = {"input_ids", "attention_mask"}
_TYPES = "token_type_ids"
# Any of these makes the library look for a processor of pictures or sound.
_PROCESSORS = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")


def check_fields(where: Path, fields: Mapping[str, Any]) -> None:
    """Raise `UnknownArchitectureError`, naming file and field, for what is not understood."""
    known = {**_APPLIED, **_WITHOUT_EFFECT}
    for key, value in fields.items():
        if key not in known:
            if not _is_token(key, value):
                raise refused(where, key, value)
        elif (values := known[key]) is not None and not _is_one_of(value, values):
            raise refused(where, key, value)
    if not _INPUTS <= set(fields.get("model_input_names") or _INPUTS) <= {*_INPUTS, _TYPES}:
        raise refused(where, "model_input_names", fields["model_input_names"])


def check_templates(folder: Path, fields: Mapping[str, Any], settings: Settings) -> None:
    """Raise the same where the library would make conversations, or pictures, of texts."""
    for name in _PROCESSORS:
        if (folder / name).is_file():
            raise refused(folder / name, "processor_class", "a file")
    files = [path.name for pattern in _TEMPLATES for path in folder.glob(pattern)]
    if settings.takes_messages and (files or fields.get("chat_template") is not None):
        raise refused(folder, "chat_template", files or fields["chat_template"])


def _is_token(key: str, value: Any) -> bool:
    """Whether it is a special token, named as every class or only this model names it."""
    if not key.endswith("_token"):
        return False
    typed = isinstance(value, dict) and value.get("__type") == "AddedToken"
    return typed or (isinstance(value, str) and bool(value)) or (value is None and key in NAMED)


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    return any(type(value) is type(each) and value == each for each in values)
