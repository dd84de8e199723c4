"""Single-field edits of a folder, and which of them change the library's results."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from .case import GRAPH, Case, Edit
from .edits import drops, drops_last_module, inside, sets
from .pipelines import MEAN

_CONFIG, _TOKENIZER = "config.json", "tokenizer_config.json"
_MAP, _OWN = "special_tokens_map.json", "config_sentence_transformers.json"
_ST, _POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
_CUT = {"max_length": 9, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
_SIGMOID = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
_IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True)
class Base:
    """A folder and edits to try on it; `changing` names those that change the library's results."""

    case: Case
    edits: Mapping[str, Edit]
    changing: AbstractSet[str]


_ANY: Mapping[str, Edit] = {
    "layer_norm_eps": sets(_CONFIG, layer_norm_eps=0.5),
    "hidden_act": sets(_CONFIG, hidden_act="relu"),
    "num_attention_heads": sets(_CONFIG, num_attention_heads=1),
    "pad_token_id": sets(_CONFIG, pad_token_id=5),
    "architectures of another head": sets(_CONFIG, architectures=["BertForMaskedLM"]),
    "dtype": sets(_CONFIG, dtype="float16"),
    "torch_dtype": sets(_CONFIG, torch_dtype="bfloat16"),
    "hidden_dropout_prob": sets(_CONFIG, hidden_dropout_prob=0.5),
    "initializer_range": sets(_CONFIG, initializer_range=1.0),
    "transformers_version": sets(_CONFIG, transformers_version="3.0.0"),
    "use_cache": sets(_CONFIG, use_cache=False),
    "classifier_dropout": sets(_CONFIG, classifier_dropout=0.5),
    "position_embedding_type": sets(_CONFIG, position_embedding_type="absolute"),
    "a key of nobody's": sets(_CONFIG, mine=1),
    "truncation_side": sets(_TOKENIZER, truncation_side="left"),
    "padding_side": sets(_TOKENIZER, padding_side="left"),
    "clean_up_tokenization_spaces": sets(_TOKENIZER, clean_up_tokenization_spaces=False),
    "name_or_path": sets(_TOKENIZER, name_or_path="another"),
    "tokenizer_class": sets(_TOKENIZER, tokenizer_class="PreTrainedTokenizerFast"),
    "no tokenizer_class": drops(_TOKENIZER, "tokenizer_class"),
    "cls_token": sets(_TOKENIZER, cls_token="about"),
    "unk_token": sets(_TOKENIZER, unk_token="about"),
    "pad_token": sets(_TOKENIZER, pad_token="about"),
    "mask_token in the map": sets(_MAP, mask_token="about"),
    "cls_token in the map": sets(_MAP, cls_token="about"),
    "post_processor": sets("tokenizer.json", post_processor=None),
    "truncation": sets("tokenizer.json", truncation=_CUT),
    "prompts": sets(_OWN, prompts={"query": "query: "}),
    "default_prompt_name": sets(_OWN, prompts={"q": "query: "}, default_prompt_name="q"),
    "__version__": sets(_OWN, __version__={"sentence_transformers": "2.0.0"}),
}
_EMBEDDER: Mapping[str, Edit] = {
    "model_max_length": sets(_TOKENIZER, model_max_length=16),
    "max_seq_length": sets(_ST, max_seq_length=16),
    "no max_seq_length": drops(_ST, "max_seq_length"),
    "lower case": sets(_ST, do_lower_case=True),
    "word_embedding_dimension": sets(_POOLING, word_embedding_dimension=7),
    "pooling_mode_cls_token": sets(_POOLING, pooling_mode_cls_token=True),
    "pooling_mode_mean_tokens": sets(_POOLING, pooling_mode_mean_tokens=False),
    "pooling_mode": sets(_POOLING, pooling_mode="cls"),
    "a module less": drops_last_module,
    "similarity_fn_name": sets(_OWN, similarity_fn_name="dot"),
}
_WORDPIECE: Mapping[str, Edit] = {
    "do_lower_case": sets(_TOKENIZER, do_lower_case=False),
    "strip_accents": sets(_TOKENIZER, strip_accents=False),
    "tokenize_chinese_chars": sets(_TOKENIZER, tokenize_chinese_chars=False),
    "model_input_names": sets(_TOKENIZER, model_input_names=["input_ids", "attention_mask"]),
    "do_basic_tokenize": sets(_TOKENIZER, do_basic_tokenize=False),
    "never_split": sets(_TOKENIZER, never_split=["password"]),
    "lowercase in tokenizer.json": inside("tokenizer.json", "normalizer", lowercase=False),
}
_BPE: Mapping[str, Edit] = {
    "add_prefix_space": sets(_TOKENIZER, add_prefix_space=True),
    "trim_offsets": sets(_TOKENIZER, trim_offsets=False),
    "errors": sets(_TOKENIZER, errors="strict"),
}
_UNIGRAM: Mapping[str, Edit] = {
    "add_prefix_space": sets(_TOKENIZER, add_prefix_space=False),
    "sp_model_kwargs": sets(_TOKENIZER, sp_model_kwargs={"enable_sampling": True}),
}
_RERANKER: Mapping[str, Edit] = {
    "model_max_length": sets(_TOKENIZER, model_max_length=16),
    "sentence_transformers": sets(_CONFIG, sentence_transformers={"activation_fn": _IDENTITY}),
    "sbert_ce_default_activation_function": sets(
        _CONFIG, sbert_ce_default_activation_function=_IDENTITY
    ),
    "the default activation": sets(_CONFIG, sentence_transformers=_SIGMOID),
    "activation_fn": sets(_OWN, activation_fn=_IDENTITY),
    "problem_type": sets(_CONFIG, problem_type="regression"),
    "id2label": sets(_CONFIG, id2label={"0": "relevant"}),
}


# Edits that change the results of every base, of every embedder, and of single kinds.
_CHANGING = {
    "layer_norm_eps", "hidden_act", "num_attention_heads", "truncation_side",
    "cls_token in the map",
}  # fmt: skip
_OF_EMBEDDERS = {
    "default_prompt_name", "max_seq_length", "pooling_mode_cls_token", "pooling_mode",
    "a module less",
}  # fmt: skip
_OF_WORDPIECE = {"do_lower_case", "strip_accents", "tokenize_chinese_chars"}
_OF_ROBERTA = {"pad_token_id", "mask_token in the map", "lower case", "add_prefix_space"}
_OF_RERANKERS = {
    "model_max_length", "sentence_transformers", "sbert_ce_default_activation_function",
    "tokenizer_class", "model_input_names",  # without token types
}  # fmt: skip


def _embedder(family: str, edits: Mapping[str, Edit], changing: set[str]) -> Base:
    case = Case(name=family, holds="", family=family, modules=MEAN, expected=GRAPH)
    return Base(case, {**_ANY, **_EMBEDDER, **edits}, _CHANGING | _OF_EMBEDDERS | changing)


BASES: Mapping[str, Base] = {
    "BERT": _embedder("bert", _WORDPIECE, _OF_WORDPIECE),
    "RoBERTa": _embedder("roberta", _BPE, _OF_ROBERTA),
    "XLM-R": _embedder("xlm-roberta", _UNIGRAM, _OF_ROBERTA),
    "reranker": Base(
        Case(name="reranker", holds="", family="bert", classifier=True, expected=GRAPH),
        {**_ANY, **_WORDPIECE, **_RERANKER},
        _CHANGING | _OF_WORDPIECE | _OF_RERANKERS,
    ),
}
