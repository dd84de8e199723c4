"""Our tokenizer of a folder is the one that sentence-transformers makes of it, id by id."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.models.errors import UnknownArchitectureError
from sidecar.models.folder.limits import max_tokens
from sidecar.models.folder.settings import read_settings
from sidecar.models.folder.tokenizer import assemble, from_library
from sidecar.models.rows import Text
from sidecar.models.tokenizer import Tokenizer

from ..minutes import may_take_minutes
from .tokenizers_zoo import (
    KINDS,
    MAX_TOKENS,
    PAIRS,
    PROBES,
    bearable,
    edit,
    leave_old_files,
    library,
    rows_of,
    write_folder,
)

Written: TypeAlias = dict[str, Path]
Change: TypeAlias = tuple[str, str, Any]
_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_SETTINGS = "sentence_bert_config.json"
_MISSING = object()
_TOKEN = {"__type": "AddedToken", "content": "[Q]", "lstrip": True, "special": True}
_LISTED = {"content": "[Q]", "lstrip": True, "rstrip": False, "normalized": False, "special": True}

_BERT_PROCESSING = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
_BYTE_LEVEL = {
    "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def weights_loaded_once() -> Iterator[None]:
    """Have the library load a model once for all folders that differ only in other files."""
    pytest.importorskip("sentence_transformers")
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]
    loaded: dict[Any, Any] = {}

    def once(of: type, folder: str, *, config: Any, **options: Any) -> Any:
        what = of, (Path(folder) / "config.json").read_text(), repr(options)
        if what not in loaded:
            loaded[what] = load(of, folder, config=config, **options)
        return loaded[what]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "from_pretrained", classmethod(once))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A folder of every kind."""
    return {kind: write_folder(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def config_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())


def ours(folder: Path, scratch: Path) -> Tokenizer:
    """Return our tokenizer of `folder`, by way of a file as in an artifact."""
    own = read_settings(folder)
    limit = max_tokens(folder, config_of(folder), own)
    scratch.write_text(assemble(folder, own, limit), "utf-8")
    return Tokenizer(scratch, limit)


def rows(tokenizer: Tokenizer, texts: list[Text]) -> list[tuple[list[int], list[int]]]:
    return [(row.ids.tolist(), row.token_types.tolist()) for row in tokenizer.rows(texts)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys(kind: str, folders: Written, tmp_path: Path) -> None:
    """Any text or pair has the library's ids, and the tokenizer as a whole is the same JSON."""
    folder = folders[kind]
    tokenizer = ours(folder, tmp_path / "tokenizer.json")
    theirs = library(folder)
    assert rows(tokenizer, PROBES) == rows_of(theirs, PROBES)
    assert rows(tokenizer, PAIRS) == rows_of(theirs, PAIRS)
    assembled = assemble(folder, read_settings(folder), MAX_TOKENS)
    assert json.loads(assembled) == json.loads(from_library(theirs.tokenizer, MAX_TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_a_reranker_are_the_librarys(kind: str, tmp_path: Path) -> None:
    """A reranker's pairs have the library's ids and types, truncated on either side."""
    folder = write_folder(kind, tmp_path / kind, classifier=True)
    for side in ("right", "left"):
        edit(folder / _CONFIG, truncation_side=side)
        tokenizer = ours(folder, tmp_path / "tokenizer.json")
        assert rows(tokenizer, PAIRS) == rows_of(library(folder, classifier=True), PAIRS)


_PIECES = [
    "a", "Bread", "unbelievably", "x" * 90, "é", "e\u0301\u0323", "\u0301", "ﬁ", "İ", "Σ",
    "한국", "中文", "😀", "👩‍👩‍👧", "\x00", "\ufffd", "\u200b", "\u00a0", "\u3000", ".", "-", "'s",
    "[SEP]", "[", "SEP]", "<s>", "</s>", "<mask>", "[MASK]", "<pad>", "<", "pad>", "▁", "Ġ",
    " ", "  ", "\n", "\t", "\r\n", "copper conducts heat ",
]  # fmt: skip
_texts = st.lists(st.sampled_from(_PIECES) | st.text(max_size=4), max_size=60).map("".join)


@pytest.fixture(scope="module")
def both(folders: Written, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Our tokenizer and the library's, for every kind."""
    scratch = tmp_path_factory.mktemp("ours") / "tokenizer.json"
    return {kind: (ours(folder, scratch), library(folder)) for kind, folder in folders.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(text=st.one_of(_texts, st.text(max_size=60), st.tuples(_texts, _texts)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_has_the_librarys_ids(both: dict[str, Any], kind: str, text: Text) -> None:
    """Random Unicode, and pieces that tokenizers treat specially, have the library's ids."""
    tokenizer, theirs = both[kind]
    assert rows(tokenizer, [text]) == rows_of(theirs, [text])


# Applied by every class that knows the field; without effect in the others.
_CHANGES: list[Change] = [
    (_CONFIG, "do_lower_case", True),
    (_CONFIG, "do_lower_case", False),
    (_CONFIG, "strip_accents", True),
    (_CONFIG, "strip_accents", False),
    (_CONFIG, "strip_accents", None),
    (_CONFIG, "tokenize_chinese_chars", False),
    (_CONFIG, "add_prefix_space", True),
    (_CONFIG, "add_prefix_space", False),
    (_CONFIG, "trim_offsets", False),
    (_CONFIG, "truncation_side", "left"),
    (_CONFIG, "padding_side", "left"),
    (_CONFIG, "model_max_length", 9),
    (_CONFIG, "model_max_length", 512),
    (_CONFIG, "model_max_length", 10**30),
    (_CONFIG, "model_max_length", 1e30),
    (_CONFIG, "model_max_length", None),
    (_CONFIG, "model_max_length", _MISSING),
    (_CONFIG, "max_len", 9),
    (_CONFIG, "model_input_names", ["input_ids", "token_type_ids", "attention_mask"]),
    (_CONFIG, "model_input_names", ["input_ids", "attention_mask"]),
    (_CONFIG, "model_input_names", _MISSING),
    (_CONFIG, "tokenizer_class", "PreTrainedTokenizerFast"),
    (_CONFIG, "tokenizer_class", "TokenizersBackend"),
    (_CONFIG, "tokenizer_class", None),
    (_CONFIG, "tokenizer_class", _MISSING),
    ("config.json", "tokenizer_class", "PreTrainedTokenizerFast"),
    (_CONFIG, "cls_token", "[Q]"),
    (_CONFIG, "sep_token", "copper"),
    (_CONFIG, "bos_token", "[Q]"),
    (_CONFIG, "eos_token", "[D]"),
    (_CONFIG, "pad_token", "[Q]"),
    (_CONFIG, "mask_token", "[Q]"),
    (_CONFIG, "mask_token", _TOKEN),
    (_CONFIG, "mask_token", _MISSING),
    (_CONFIG, "query_token", "[Q]"),
    (_CONFIG, "query_token", _TOKEN),
    (_CONFIG, "additional_special_tokens", ["[Q]", "[D]"]),
    (_CONFIG, "additional_special_tokens", []),
    (_CONFIG, "extra_special_tokens", ["[D]", "[Q]", "copper"]),
    (_CONFIG, "extra_special_tokens", [_TOKEN]),
    (_CONFIG, "extra_special_tokens", {"query_token": "[Q]"}),
    (_CONFIG, "extra_special_tokens", {}),
    (_CONFIG, "extra_special_tokens", None),
    (_CONFIG, "added_tokens_decoder", {}),
    (_CONFIG, "added_tokens_decoder", {"7": _LISTED}),
    (_CONFIG, "added_tokens_decoder", {"700": _LISTED | {"special": False}}),
    (_CONFIG, "added_tokens_decoder", {"2": _LISTED | {"content": "copper", "lstrip": False}}),
    (_CONFIG, "added_tokens_decoder", {
        "701": _LISTED, "700": _LISTED | {"content": "[D]"}, "702": _LISTED | {"content": "▁a"},
    }),
    (_CONFIG, "split_special_tokens", False),
    (_CONFIG, "clean_up_tokenization_spaces", True),
    (_CONFIG, "errors", "ignore"),
    (_CONFIG, "add_bos_token", True),
    (_CONFIG, "add_eos_token", True),
    (_CONFIG, "pad_token_type_id", 1),
    (_CONFIG, "pad_to_multiple_of", 8),
    (_CONFIG, "max_length", 9),
    (_CONFIG, "stride", 2),
    (_CONFIG, "truncation_strategy", "only_first"),
    (_CONFIG, "do_basic_tokenize", False),
    (_CONFIG, "never_split", ["copper"]),
    (_CONFIG, "legacy", False),
    (_CONFIG, "name_or_path", "elsewhere"),
    (_CONFIG, "tokenizer_file", "/elsewhere/tokenizer.json"),
    (_CONFIG, "vocab_file", "/elsewhere/vocab.txt"),
    (_CONFIG, "special_tokens_map_file", "/elsewhere/map.json"),
    (_CONFIG, "chat_template", "{{ messages }}"),
    (_MAP, "cls_token", "[Q]"),
    (_MAP, "sep_token", {"content": "copper", "lstrip": True}),
    (_MAP, "mask_token", {"content": "<mask>", "rstrip": True, "normalized": True}),
    (_MAP, "query_token", "[Q]"),
    (_MAP, "additional_special_tokens", ["[Q]"]),
    (_MAP, "extra_special_tokens", ["[Q]", {"content": "[D]", "rstrip": True}]),
    (_MAP, "extra_special_tokens", {"query_token": "[Q]"}),
    (_ADDED, "[Q]", 700),
    (_ADDED, "copper", 5),
    (_SETTINGS, "do_lower_case", True),
    (_SETTINGS, "do_lower_case", False),
    (_SETTINGS, "max_seq_length", 9),
    (_SETTINGS, "max_seq_length", 30),
    (_SETTINGS, "max_seq_length", 512),
    (_SETTINGS, "max_seq_length", None),
    (_SETTINGS, "tokenizer_args", {"model_max_length": 11, "truncation_side": "left"}),
    (_SETTINGS, "processor_kwargs", {"do_lower_case": False, "use_fast": False}),
    (_SETTINGS, "model_args", {"attn_implementation": "eager"}),
    (_SETTINGS, "config_args", {}),
    (_SETTINGS, "unpad_inputs", False),
    (_SETTINGS, "transformer_task", "feature-extraction"),
    ("sentence_roberta_config.json", "max_seq_length", 9),
    ("sentence_xlnet_config.json", "max_seq_length", 9),
    ("tokenizer.json", "truncation", {
        "direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0,
    }),
    ("tokenizer.json", "padding", {
        "strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "[Q]",
    }),
    ("tokenizer.json", "post_processor", None),
    ("tokenizer.json", "post_processor", _BERT_PROCESSING),
    ("tokenizer.json", "post_processor", _BYTE_LEVEL),
    ("tokenizer.json", "post_processor", {
        "type": "Sequence", "processors": [_BYTE_LEVEL, _BERT_PROCESSING],
    }),
    ("tokenizer.json", "post_processor", {"type": "Sequence", "processors": [_BYTE_LEVEL]}),
    ("tokenizer.json", "normalizer", {"type": "Lowercase"}),
    ("tokenizer.json", "normalizer", None),
    ("tokenizer.json", "added_tokens", []),
]  # fmt: skip


# One kind of each algorithm goes through every change; each of the others through every third one.
_ALGORITHMS = ("bert", "roberta", "xlm-roberta")  # WordPiece, BPE, Unigram
_OTHERS = [kind for kind in KINDS if kind not in _ALGORITHMS]


def _changes_of(kind: str) -> list[Change]:
    if kind in _ALGORITHMS or may_take_minutes():
        return _CHANGES
    return _CHANGES[_OTHERS.index(kind) % 3 :: 3]


def change(folder: Path, file: str, field: str, value: Any) -> None:
    path = folder / file
    if value is _MISSING:
        edit(path, field)
    else:
        edit(path, **{field: value})


def compared(kind: str, folder: Path, scratch: Path) -> str:
    """Return how ours differs from the library's in ids or limit, or "" if it does not.

    If the model has fewer positions than the library assumes, the library crashes on longer texts;
    so its limit is lowered first.
    """
    texts: list[Text] = [*PROBES, *PAIRS]
    theirs = library(folder)
    theirs.max_seq_length = min(theirs.max_seq_length, bearable(kind))
    limit = max_tokens(folder, config_of(folder), read_settings(folder))
    if limit != theirs.max_seq_length:
        return f"limit {limit}, theirs {theirs.max_seq_length}"
    return "" if rows(ours(folder, scratch), texts) == rows_of(theirs, texts) else "other ids"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_field_changes_our_ids_as_the_librarys(
    kind: str, folders: Written, tmp_path: Path
) -> None:
    """Changing any field in any file leaves our ids and limit equal to the library's.

    Every kind goes through every change under `--hypothesis-profile=minutes`.
    """
    for number, (file, field, value) in enumerate(_changes_of(kind)):
        folder = shutil.copytree(folders[kind], tmp_path / str(number))
        change(folder, file, field, value)
        assert not compared(kind, folder, tmp_path / "tokenizer.json"), (file, field, value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changes_together_change_our_ids_as_the_librarys(
    kind: str, folders: Written, tmp_path: Path
) -> None:
    """Changing several fields at once leaves our ids and limit equal to the library's."""
    choose = random.Random(kind)
    for number in range(40 if may_take_minutes() else 8):
        folder = shutil.copytree(folders[kind], tmp_path / str(number))
        changes = choose.sample(_CHANGES, 4)
        for each in changes:
            change(folder, *each)
        assert not compared(kind, folder, tmp_path / "tokenizer.json"), changes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "bert-cased", "distilbert", "mpnet", "roberta"])
def test_files_of_before_tokenizer_json_are_read(kind: str, tmp_path: Path) -> None:
    """A vocab.txt, or vocab.json and merges.txt, gives the tokenizer that the library makes."""
    folder = write_folder(kind, tmp_path / kind)
    leave_old_files(folder)
    edit(folder / _ADDED, **{"[Q]": 700, "copper": 701, "[K]": 702})
    edit(folder / _MAP, query_token="[Q]", cls_token={"content": "[K]", "lstrip": True})
    assert not compared(kind, folder, tmp_path / "tokenizer.json")


def test_the_older_name_of_a_setting_counts(folders: Written, tmp_path: Path) -> None:
    """Of a setting's two names in one folder, the older one counts, as in the library."""
    both = {"tokenizer_args": {"model_max_length": 11}, "processor_kwargs": {}}
    for number, names in enumerate((list(both), list(reversed(both)))):
        folder = shutil.copytree(folders["bert"], tmp_path / str(number))
        edit(folder / _SETTINGS, **{name: both[name] for name in names})
        limit = max_tokens(folder, config_of(folder), read_settings(folder))
        assert limit == library(folder).max_seq_length == 11


def test_a_sentencepiece_model_needs_the_library(folders: Written, tmp_path: Path) -> None:
    """Without a tokenizer.json, a SentencePiece model is refused with what to install."""
    folder = shutil.copytree(folders["xlm-roberta"], tmp_path / "xlm-roberta")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UnknownArchitectureError, match=r"no tokenizer\.json.*extra `server`"):
        ours(folder, tmp_path / "tokenizer.json")


_REFUSED: list[Change] = [
    (_CONFIG, "surprise", 1),
    (_CONFIG, "tokenizer_class", "MyTokenizer"),
    (_CONFIG, "tokenizer_class", "T5Tokenizer"),
    (_CONFIG, "tokenizer_class", 7),
    (_CONFIG, "auto_map", {"AutoTokenizer": ["own.Tokenizer", None]}),
    (_CONFIG, "processor_class", "CLIPProcessor"),
    (_CONFIG, "fast_tokenizer_files", ["tokenizer.9.json"]),
    (_CONFIG, "split_special_tokens", True),
    (_CONFIG, "do_lower_case", "yes"),
    (_CONFIG, "do_lower_case", 1),
    (_CONFIG, "strip_accents", 0),
    (_CONFIG, "truncation_side", "up"),
    (_CONFIG, "padding_side", "up"),
    (_CONFIG, "model_input_names", ["input_ids", "bbox", "attention_mask"]),
    (_CONFIG, "model_input_names", ["input_ids"]),
    (_CONFIG, "model_max_length", "512"),
    (_CONFIG, "model_max_length", 20.5),
    (_CONFIG, "model_max_length", 0),
    (_CONFIG, "model_max_length", True),
    (_CONFIG, "cls_token", None),
    (_CONFIG, "cls_token", ""),
    (_CONFIG, "cls_token", {"content": "[Q]"}),
    (_CONFIG, "cls_token", ["[Q]"]),
    (_CONFIG, "query_token", 7),
    (_CONFIG, "extra_special_tokens", "[Q]"),
    (_CONFIG, "extra_special_tokens", [7]),
    (_CONFIG, "added_tokens_decoder", {"7": {"surprise": 1}}),
    (_MAP, "do_lower_case", False),
    (_MAP, "cls_token", ["[Q]"]),
    (_MAP, "additional_special_tokens", [{"content": "[Q]"}]),
    (_SETTINGS, "surprise", 1),
    (_SETTINGS, "do_lower_case", "yes"),
    (_SETTINGS, "max_seq_length", "512"),
    (_SETTINGS, "query_length", 8),
    (_SETTINGS, "document_length", 8),
    (_SETTINGS, "query_expansion", {"strategy": "fixed", "length": 8}),
    (_SETTINGS, "processing_kwargs", {"text": {"max_length": 8}}),
    (_SETTINGS, "transformer_task", "fill-mask"),
    (_SETTINGS, "tokenizer_name_or_path", "elsewhere"),
    (_SETTINGS, "tokenizer_args", {"add_bos_token": True}),
    (_SETTINGS, "processor_kwargs", {"surprise": 1}),
    (_SETTINGS, "model_args", {"torch_dtype": "float16"}),
    (_SETTINGS, "config_kwargs", {"num_hidden_layers": 1}),
    (_SETTINGS, "modality_config", {"message": {"method": "forward"}}),
    ("sentence_albert_config.json", "surprise", 1),
    ("tokenizer.json", "model", {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}),
    ("config.json", "processor_class", "CLIPProcessor"),
]  # fmt: skip


_REPORTED_AS = {
    "additional_special_tokens": "extra_special_tokens",
    "tokenizer_args": "processor_kwargs",
    "model_args": "model_kwargs",
    "model": "WordLevel",
}


def test_what_is_not_understood_is_refused_by_name(folders: Written, tmp_path: Path) -> None:
    """Unknown fields and values are refused by name, which leaves the folder to the library."""
    for number, (file, field, value) in enumerate(_REFUSED):
        folder = shutil.copytree(folders["bert"], tmp_path / str(number))
        change(folder, file, field, value)
        with pytest.raises(UnknownArchitectureError) as caught:
            ours(folder, tmp_path / "tokenizer.json")
        named = _REPORTED_AS.get(field, field)
        assert named in str(caught.value), (file, field, value, str(caught.value))


def test_texts_that_would_become_chats_are_refused(folders: Written, tmp_path: Path) -> None:
    """A chat template is refused if it would turn every text into a conversation."""
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")
    edit(folder / _CONFIG, chat_template="{{ messages }}")
    ours(folder, tmp_path / "tokenizer.json")
    text = {"method": "forward"}
    edit(folder / _SETTINGS, modality_config={"text": text})
    ours(folder, tmp_path / "tokenizer.json")
    edit(folder / _SETTINGS, modality_config={"text": text, "message": text})
    with pytest.raises(UnknownArchitectureError, match="chat_template"):
        ours(folder, tmp_path / "tokenizer.json")
    edit(folder / _SETTINGS, "modality_config")
    (folder / "modules.json").unlink()
    with pytest.raises(UnknownArchitectureError, match="chat_template"):
        ours(folder, tmp_path / "tokenizer.json")
    edit(folder / _CONFIG, "chat_template")
    ours(folder, tmp_path / "tokenizer.json")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UnknownArchitectureError, match="chat_template"):
        ours(folder, tmp_path / "tokenizer.json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "camembert", "xlm-roberta"])
def test_a_model_takes_what_its_positions_bear(kind: str, folders: Written, tmp_path: Path) -> None:
    """A model's limit is capped by its positions; with one more token, the library crashes."""
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    edit(folder / _SETTINGS, max_seq_length=512)
    limit = max_tokens(folder, config_of(folder), read_settings(folder))
    assert limit == bearable(kind)
    edit(folder / _SETTINGS, max_seq_length=9, processor_kwargs={"model_max_length": 11})
    stated = max_tokens(folder, config_of(folder), read_settings(folder))
    assert stated == library(folder).max_seq_length == 11
    pipeline = library(folder)
    pipeline.max_seq_length = limit
    pipeline.encode("copper " * 200)
    pipeline.max_seq_length = limit + 1
    with pytest.raises((IndexError, RuntimeError)):
        pipeline.encode("copper " * 200)


def test_a_family_without_a_known_tokenizer_is_refused(folders: Written, tmp_path: Path) -> None:
    """A folder is refused if its family has no known tokenizer class."""
    folder = shutil.copytree(folders["bert"], tmp_path / "bert")
    edit(folder / "config.json", model_type="gpt2")
    with pytest.raises(UnknownArchitectureError, match="model_type"):
        assemble(folder, read_settings(folder), 32)
