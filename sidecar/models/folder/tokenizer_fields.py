"""The fields of tokenizer_config.json: applied, without effect, or refused.

Nothing is silently ignored: a field is applied, listed here as having no effect on ids, or refused
by name.
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
"""The special tokens of every class, in the library's order, which determines new ids."""

_SIDES = ("left", "right")
_FLAGS = (True, False)
# Applied, with the values that the library accepts; None: any, checked at the point of use.
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
    # True makes the library treat special tokens as text, which tokenizer.json cannot express.
    "split_special_tokens": (False,),
}
# Known to have no effect on ids, with the values for which this holds.
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...] | None] = {
    "padding_side": _SIDES,  # rows are never padded here
    "pad_to_multiple_of": None,
    "pad_token_type_id": None,
    "padding": None,
    # Decoding.
    "clean_up_tokenization_spaces": None,
    "errors": None,
    "decode_with_prefix_space": None,
    # Call arguments, which sentence-transformers sets itself.
    "max_length": None,
    "stride": None,
    "truncation": None,
    "truncation_strategy": None,
    # Chat templates; `check_templates` refuses a folder in which they would apply to texts.
    "chat_template": None,
    "response_schema": None,
    # For the classes without `tokenizers`, before version 5.
    "do_basic_tokenize": None,
    "never_split": None,
    "sp_model_kwargs": None,
    "legacy": None,
    "use_fast": None,
    "from_slow": None,
    "keep_accents": None,
    "remove_space": None,
    # Original file locations; the library uses the files in the folder.
    "name_or_path": None,
    "vocab_file": None,
    "tokenizer_file": None,
    "special_tokens_map_file": None,
    "is_local": None,
    "local_files_only": None,
    # Metadata about the writer of the folder.
    "backend": None,
    "files_loaded": None,
    "transformers_version": None,
    "_commit_hash": None,
    "verbose": None,
    "init_inputs": ((), []),
    # Used only without a tokenizer.json, in which case every class sets its own.
    "add_bos_token": None,
    "add_eos_token": None,
    "auto_map": (None, {}),
    "processor_class": (None,),
}
_INPUTS = {"input_ids", "attention_mask"}
_TYPES = "token_type_ids"
# Any of these makes the library load an image or audio processor.
_PROCESSORS = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")


def check_fields(where: Path, fields: Mapping[str, Any]) -> None:
    """Raise `UnknownArchitectureError`, naming file and field, for an unsupported field."""
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
    """Raise the same if the library would wrap texts in a chat template or use a processor."""
    for name in _PROCESSORS:
        if (folder / name).is_file():
            raise refused(folder / name, "processor_class", "a file")
    files = [path.name for pattern in _TEMPLATES for path in folder.glob(pattern)]
    if settings.takes_messages and (files or fields.get("chat_template") is not None):
        raise refused(folder, "chat_template", files or fields["chat_template"])


def _is_token(key: str, value: Any) -> bool:
    """Whether a field holds a special token, for a common role or one of this model only."""
    if not key.endswith("_token"):
        return False
    typed = isinstance(value, dict) and value.get("__type") == "AddedToken"
    return typed or (isinstance(value, str) and bool(value)) or (value is None and key in NAMED)


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    return any(type(value) is type(each) and value == each for each in values)
