"""Settings of sentence-transformers' Transformer module, stored beside its model.

The library passes every field to the module's constructor, which fails on an unknown one. So each
field here is applied, known to have no effect, or refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.config import transformer_of
from sidecar.models.folder.files import read_json

# In the library's order: the first file that exists and is not empty is used.
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
# The values that match what our graphs compute; any other would change the vectors.
_EXPECTED: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction", "sequence-classification"),
    "module_output_name": ("token_embeddings", "scores"),
    "unpad_inputs": (None, True, False),  # affects batching, not results
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
    "config_kwargs": (None, {}),
}
_TEXT_METHODS = {"forward"}
_MODEL_KWARGS: Mapping[str, tuple[Any, ...]] = {
    # Different implementations of the same attention.
    "attn_implementation": (None, "eager", "sdpa"),
    "dtype": ("float32", "torch.float32"),
    "torch_dtype": ("float32", "torch.float32"),
}
# The arguments with which `AutoTokenizer` overrides fields of tokenizer_config.json.
_TOKENIZER_KWARGS = {
    "model_max_length", "truncation_side", "padding_side", "model_input_names", "do_lower_case",
    "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "split_special_tokens",
    "clean_up_tokenization_spaces", "use_fast",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a Transformer module; the defaults are those of a plain transformers folder.

    `max_seq_length`, in tokens, overrides the limit in the tokenizer's files. `tokenizer` holds
    the fields that override tokenizer_config.json. `takes_messages` is true if a chat template
    would turn every text into a conversation.
    """

    max_seq_length: int | None = None
    lower_case: bool = False
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    takes_messages: bool = True


def read_settings(folder: Path) -> Settings:
    """Return the settings of the Transformer module of the model in `folder`.

    Raises `UnknownArchitectureError`, naming file and field, for an unsupported setting.
    """
    if not (folder / "modules.json").is_file():
        return Settings()  # the library does not read them, either
    transformer = transformer_of(folder)
    name, fields = _read(transformer)
    where = transformer / name
    for old, new in _RENAMED.items():
        if old in fields:  # wins over the new name, as in the library
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
    if not isinstance(text, dict) or text.get("method") not in _TEXT_METHODS:
        raise refused(where, "modality_config", modalities)


def _check_model_kwargs(where: Path, kwargs: Mapping[str, Any]) -> None:
    for key, value in kwargs.items():
        if key != "trust_remote_code" and value not in _MODEL_KWARGS.get(key, ()):
            raise refused(where, f"model_kwargs.{key}", value)


def _check_tokenizer_kwargs(where: Path, kwargs: Mapping[str, Any]) -> None:
    for key, value in kwargs.items():
        # The library drops it, too: a folder must not authorise running its own code.
        if key != "trust_remote_code" and key not in _TOKENIZER_KWARGS:
            raise refused(where, f"processor_kwargs.{key}", value)


def refused(where: Path, key: str, value: object) -> UnknownArchitectureError:
    """Return the error for an unsupported field: the file, the key and its shortened value."""
    text = repr(value)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return UnknownArchitectureError(f"{where}: unsupported field {key!r}: {shown}")


_SHOWN = 60
