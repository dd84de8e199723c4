"""What sentence-transformers' Transformer module is told: the settings that lie beside its model.

The library hands every field to its module's constructor: one that it does not know ends its
load. So each is applied here, or known to change nothing, or refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.config import transformer_of
from sidecar.models.folder.files import read_json

# In the library's order: the first that is there and not empty counts.
_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_RENAMED = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}
# What stands there is what is computed here anyway; another value would change the vectors.
_EXPECTED: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction", "sequence-classification"),
    "module_output_name": ("token_embeddings", "scores"),
    "unpad_inputs": (None, True, False),  # how rows are batched, not what they come out as
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
    "config_kwargs": (None, {}),
}
_TEXT_ALONE = {"forward"}
_MODEL_KWARGS: Mapping[str, tuple[Any, ...]] = {
    # Ways to compute the same attention.
    "attn_implementation": (None, "eager", "sdpa"),
    "dtype": ("float32", "torch.float32"),
    "torch_dtype": ("float32", "torch.float32"),
}
# Those that `AutoTokenizer` lays over tokenizer_config.json, one for one.
_TOKENIZER_KWARGS = {
    "model_max_length", "truncation_side", "padding_side", "model_input_names", "do_lower_case",
    "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "split_special_tokens",
    "clean_up_tokenization_spaces", "use_fast",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What the folder of a Transformer module says of it; the default is a plain folder's.

    `max_seq_length` is in tokens and cuts texts whatever the tokenizer's own files say.
    `tokenizer` holds the fields to lay over tokenizer_config.json. `takes_messages` where a chat
    template would turn every text into a conversation.
    """

    max_seq_length: int | None = None
    lower_case: bool = False
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    takes_messages: bool = True


def read_settings(folder: Path) -> Settings:
    """Return the settings of the Transformer module of the model in `folder`.

    Raises `UnknownArchitectureError`, naming file and field, for what no graph here does.
    """
    if not (folder / "modules.json").is_file():
        return Settings()  # the library does not look for them there
    transformer = transformer_of(folder)
    name, fields = _read(transformer)
    where = transformer / name
    for old, new in _RENAMED.items():
        if old in fields:  # counts before the newer one, as there
            fields[new] = fields.pop(old)
    for key, value in fields.items():
        _check(where, key, value)
    tokenizer = fields.get("processor_kwargs") or {}
    return Settings(
        max_seq_length=fields.get("max_seq_length"),
        lower_case=bool(fields.get("do_lower_case")),
        tokenizer={key: value for key, value in tokenizer.items() if key != "use_fast"},
        takes_messages="message" in (fields.get("modality_config") or {}),
    )


def _read(folder: Path) -> tuple[str, dict[str, Any]]:
    for name in _FILES:
        if fields := read_json(folder, name, optional=True):
            return name, fields
    return _FILES[0], {}


def _check(where: Path, key: str, value: Any) -> None:
    if key == "modality_config":
        _check_modalities(where, value)
    elif key == "model_kwargs":
        _check_model_kwargs(where, value or {})
    elif key == "processor_kwargs":
        _check_tokenizer_kwargs(where, value or {})
    elif key == "do_lower_case":
        if not isinstance(value, bool):
            raise refused(where, key, value)
    elif key != "max_seq_length" and value not in _EXPECTED.get(key, ()):
        raise refused(where, key, value)


def _check_modalities(where: Path, modalities: Any) -> None:
    text = modalities.get("text") if isinstance(modalities, dict) else None
    if not isinstance(text, dict) or text.get("method") not in _TEXT_ALONE:
        raise refused(where, "modality_config", modalities)


def _check_model_kwargs(where: Path, kwargs: Mapping[str, Any]) -> None:
    for key, value in kwargs.items():
        if key != "trust_remote_code" and value not in _MODEL_KWARGS.get(key, ()):
            raise refused(where, f"model_kwargs.{key}", value)


def _check_tokenizer_kwargs(where: Path, kwargs: Mapping[str, Any]) -> None:
    for key, value in kwargs.items():
        # The library strikes it out as well: a folder must not say that its code may run.
        if key != "trust_remote_code" and key not in _TOKENIZER_KWARGS:
            raise refused(where, f"processor_kwargs.{key}", value)


def refused(where: Path, key: str, value: object) -> UnknownArchitectureError:
    """Return the error that names the field `key` of the file at `where`, and its value."""
    text = repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return UnknownArchitectureError(f"{where}: field {key!r} as {shown} is not understood")


_SHOWN = 60
