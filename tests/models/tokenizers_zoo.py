"""Tiny folders with every kind of tokenizer, written by the library's own classes."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Unbelievable! It's the dog's.",
    "Naïve café, ÉCOLE façade, Zürich, straße, İstanbul, ΣΊΣΥΦΟΣ, résumé, e\u0301cole.",
    "中文文本 東京タワー かな カナ 한국어 نص عربي עברית ไทย",
    "😀 👩‍👩‍👧 1234567890 3.14159 x = [1, 2] {'a': None} # code_with_underscores",
    "copper conducts heat better than steel, but silver conducts it best of all three",
] * 4
PROBES = [
    "", " ", "   ", "\n", "\t\r\n", "a", "A quick BROWN fox.", "quick  brown   fox ",
    " leading", "trailing \n", "Naïve café ÉCOLE", "nai\u0308ve cafe\u0301", "\u0301 \u0308x",
    "中文 and 東京タワー", "かなカナ", "한국어 \u1112\u1161\u11ab", "نص عربي", "עברית", "ไทย",
    "😀 👩‍👩‍👧!", "1234567890 3.14", "a\x00b\x07c\ufffdd\u200be", "\u00a0\u3000x\u2028y",
    "ﬁne ① \uff21 ½ ™", "it's the dog's", "x" * 120, "İstanbul ΣΊΣΥΦΟΣ straße",
    "[CLS] a [SEP] b [MASK] [PAD] [UNK]", "<s> a </s> b <mask> <pad> <unk>", "a<mask>b [MASK]c",
    "a  <mask>  b", "[cls] [Sep] <S> <MASK>", "<s>NOTUSED </s>NOTUSED", "[Q] what is [D] this",
    "▁a ▁▁b", "Ġa Ċ", "##ing ing", "new york New York newyork", "query: a", "a\nb\n\nc",
    "copper conducts heat better than steel " * 12, "中" * 80, "😀" * 60, "[Q] " * 40,
    "[K] a [k] b",
]  # fmt: skip
PAIRS = [
    ("a", "b"), ("", ""), ("", "b"), ("a", ""), (" ", "\n"),
    ("copper", "copper conducts heat better than steel " * 9),
    ("copper conducts heat better than steel " * 9, "copper"),
    ("copper conducts heat better " * 9, "than steel but silver " * 9),
    ("[SEP] </s> [Q]", "<mask> [MASK] Ünï"),
]  # fmt: skip
MAX_TOKENS = 24
_POSITIONS = 40

_BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_MPNET_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
_TINY = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": _POSITIONS, "vocab_size": 1_200,
}  # fmt: skip


def _word_piece(special: list[str], *, lower: bool = True) -> dict[str, int]:
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=lower)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    return trained.get_vocab()


def _byte_level() -> tuple[dict[str, int], list[Any]]:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=_ROBERTA_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    return [*((str(piece), float(score)) for piece, score in pieces), ("<mask>", 0.0)]


def _bert(**fields: Any) -> Any:
    from transformers import BertTokenizer

    lower = fields.get("do_lower_case", True)
    return BertTokenizer(vocab=_word_piece(_BERT_TOKENS, lower=lower), **fields)


def _distilbert() -> Any:
    from transformers import DistilBertTokenizer

    return DistilBertTokenizer(vocab=_word_piece(_BERT_TOKENS))


def _mpnet() -> Any:
    from transformers import MPNetTokenizer

    return MPNetTokenizer(vocab=_word_piece(_MPNET_TOKENS))


def _roberta(**fields: Any) -> Any:
    from transformers import RobertaTokenizer

    vocabulary, merges = _byte_level()
    return RobertaTokenizer(vocab=vocabulary, merges=merges, **fields)


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaTokenizer

    return XLMRobertaTokenizer(vocab=_unigram(["<s>", "<pad>", "</s>", "<unk>"]))


def _camembert() -> Any:
    from transformers import CamembertTokenizer

    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]
    return CamembertTokenizer(vocab=_unigram(special))


def _plain(made: Any, **fields: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=made.backend_tokenizer, **fields)


def _named(made: Any) -> dict[str, str]:
    return {f"{name}_token": getattr(made, f"{name}_token") for name in _PLAIN_TOKENS}


_PLAIN_TOKENS = ("cls", "sep", "pad", "mask", "unk")


def _plain_bert() -> Any:
    made = _bert()
    return _plain(made, **_named(made))


def _plain_roberta() -> Any:
    made = _roberta()
    return _plain(made, **_named(made), bos_token="<s>", eos_token="</s>")


# kind -> the prefix of transformers' model classes, and a function that makes the tokenizer.
KINDS: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "bert": ("Bert", _bert),
    "bert-cased": ("Bert", lambda: _bert(do_lower_case=False)),
    "distilbert": ("DistilBert", _distilbert),
    "electra": ("Electra", _bert),
    "ernie": ("Ernie", _bert),
    "mpnet": ("MPNet", _mpnet),
    "roberta": ("Roberta", _roberta),
    "roberta-spaced": ("Roberta", lambda: _roberta(add_prefix_space=True)),
    "xlm-roberta": ("XLMRoberta", _xlm_roberta),
    "camembert": ("Camembert", _camembert),
    "plain-bert": ("Bert", _plain_bert),
    "plain-roberta": ("Roberta", _plain_roberta),
}


@cache
def _make_tokenizer(kind: str) -> Any:
    _, make = KINDS[kind]
    return make()


def write_tokenizer(kind: str, folder: Path) -> None:
    """Write the files of a tokenizer of `kind`, and the family that it belongs to."""
    import transformers

    prefix, _ = KINDS[kind]
    _make_tokenizer(kind).save_pretrained(folder)
    family = getattr(transformers, f"{prefix}Config").model_type
    edit(folder / "config.json", model_type=family)


def bearable(kind: str) -> int:
    """Return how many tokens the tiny model of `kind` has positions for."""
    behind_padding = {"mpnet", "camembert"}
    return _POSITIONS - (2 if "roberta" in kind or kind in behind_padding else 0)


def write_folder(kind: str, folder: Path, *, classifier: bool = False) -> Path:
    """Write a sentence-transformers folder with a tokenizer of `kind` and tiny weights."""
    import transformers

    prefix, _ = KINDS[kind]
    config = getattr(transformers, f"{prefix}Config")(**_TINY, num_labels=1)
    ending = "ForSequenceClassification" if classifier else "Model"
    getattr(transformers, f"{prefix}{ending}")(config).save_pretrained(folder)
    _make_tokenizer(kind).save_pretrained(folder)
    if not classifier:
        _write_modules(folder)
    edit(folder / "tokenizer_config.json", model_max_length=MAX_TOKENS)
    return folder


def _write_modules(folder: Path) -> None:
    listed = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(listed)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def edit(path: Path, *without: str, **changes: Any) -> None:
    """Change fields of the JSON file at `path`, creating it if need be, and remove others."""
    fields = json.loads(path.read_text()) if path.is_file() else {}
    kept = {key: value for key, value in (fields | changes).items() if key not in without}
    path.write_text(json.dumps(kept))


def leave_old_files(folder: Path) -> None:
    """Replace tokenizer.json with the vocabulary files that were used before it existed."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if model["type"] == "WordPiece":
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = "".join(f"{' '.join(merge)}\n" for merge in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", "utf-8")
    (folder / "tokenizer.json").unlink()


def library(folder: Path, *, classifier: bool = False) -> Any:
    """Return the library's pipeline for the model in `folder`."""
    import transformers
    from sentence_transformers import CrossEncoder, SentenceTransformer

    transformers.logging.disable_progress_bar()
    kind = CrossEncoder if classifier else SentenceTransformer
    return kind(str(folder), device="cpu", local_files_only=True)


def rows_of(pipeline: Any, texts: Iterable[Any]) -> list[tuple[list[int], list[int]]]:
    """Return the ids and token types that the library gives its model for each text separately."""
    return [_row(pipeline.preprocess([text])) for text in texts]


def _row(features: Any) -> tuple[list[int], list[int]]:
    ids = features["input_ids"][0].tolist()
    types = features.get("token_type_ids")
    return ids, types[0].tolist() if types is not None else [0] * len(ids)
