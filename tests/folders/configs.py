"""Cases about config.json, the class it names, and prompts."""

from collections.abc import Iterator, Mapping

from .case import GRAPH, LIBRARY, Case, Edit, Outcome, refused
from .edits import drops, named, sets, writes
from .pipelines import MEAN

_CONFIG, _OWN = "config.json", "config_sentence_transformers.json"
_AUTO = {"AutoModel": "modeling_own.OwnModel", "AutoConfig": "configuration_own.OwnConfig"}
_DEFAULTS = ("layer_norm_eps", "hidden_act", "type_vocab_size", "pad_token_id",
             "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range",
             "architectures", "dtype", "transformers_version", "use_cache")  # fmt: skip
_PROMPTS = {"query": "query: ", "passage": "passage: "}
_BERT: Mapping[str, tuple[tuple[Edit, ...], Outcome]] = {
    "config.json without keys that have defaults": ((drops(_CONFIG, *_DEFAULTS),), GRAPH),
    "no architectures": ((drops(_CONFIG, "architectures"),), GRAPH),
    "architectures of another head": (
        (sets(_CONFIG, architectures=["BertForMaskedLM"]),),
        GRAPH,
    ),
    "layer_norm_eps of 0.1": ((sets(_CONFIG, layer_norm_eps=0.1),), GRAPH),
    "one attention head": ((sets(_CONFIG, num_attention_heads=1),), GRAPH),
    "heads that do not divide the width": (
        (sets(_CONFIG, num_attention_heads=3),),
        refused("heads"),
    ),
    "is_decoder: true": ((sets(_CONFIG, is_decoder=True),), LIBRARY),
    "custom code (auto_map), every tensor there": ((sets(_CONFIG, auto_map=_AUTO),), GRAPH),
    "custom code (auto_map), tensors missing": (
        (sets(_CONFIG, auto_map=_AUTO), named(lambda name: name.replace("query", "Wq"))),
        refused("query"),
    ),
    "no model_type": ((drops(_CONFIG, "model_type"),), refused("model_type")),
    "an unknown model_type": ((sets(_CONFIG, model_type="unheard"),), refused("unheard")),
    "an empty config.json": ((writes(_CONFIG, "{}"),), refused("config.json")),
    "config.json that is not JSON": ((writes(_CONFIG, "{"),), refused("config.json")),
    "config.json that is a list": ((writes(_CONFIG, "[]"),), refused("config.json")),
    "hidden_size of a wrong type": ((sets(_CONFIG, hidden_size="32"),), refused("hidden_size")),
    "one token type": ((), GRAPH),
}
_WITH_PROMPTS: Mapping[str, tuple[tuple[Edit, ...], Outcome]] = {
    "prompts and a default": (
        (sets(_OWN, prompts=_PROMPTS, default_prompt_name="query"),),
        GRAPH,
    ),
    "prompts without a default": ((sets(_OWN, prompts=_PROMPTS, default_prompt_name=None),), GRAPH),
    "prompts: null": ((sets(_OWN, prompts=None),), refused("prompts")),
    "a prompt of null": ((sets(_OWN, prompts={"query": None, "document": "d: "}),), GRAPH),
    "a default_prompt_name that is in no prompts": (
        (sets(_OWN, prompts=_PROMPTS, default_prompt_name="title"),),
        refused("title"),
    ),
    "similarity_fn_name: dot": ((sets(_OWN, similarity_fn_name="dot"),), GRAPH),
}
_ACTIVATIONS = {"gelu_new": GRAPH, "gelu_pytorch_tanh": GRAPH, "relu": GRAPH, "silu": GRAPH}


def config_cases() -> Iterator[Case]:
    """Yield cases of config.json fields, set or missing, for BERT and other relevant families."""
    for holds, (edits, expected) in _BERT.items():
        config = {"type_vocab_size": 1} if holds == "one token type" else {}
        yield Case(name=f"bert: {holds}", holds=holds, family="bert", modules=MEAN,
                   config=config, edits=edits, expected=expected)  # fmt: skip
    for activation, expected in _ACTIVATIONS.items():
        yield _made("bert", f"hidden_act: {activation}", expected, hidden_act=activation)
    yield _made("distilbert", "hidden_act: gelu_new", GRAPH, activation="gelu_new")
    for family in ("roberta", "xlm-roberta", "camembert"):
        yield _made(family, "pad_token_id: 0", GRAPH, pad_token_id=0)
    yield _made("mpnet", "pad_token_id: 0", GRAPH, pad_token_id=0)
    yield _made("electra", "embeddings narrower than the layers", GRAPH, embedding_size=16)
    yield _made("ernie", "a task id beside the token types", GRAPH, use_task_id=True)
    yield _made("xlm-roberta-xl", "a family of another order of layers", LIBRARY)
    yield _made("distilbert", "sinusoidal positions", GRAPH, sinusoidal_pos_embds=True)
    yield Case(
        name="roberta: config.json without keys that have defaults",
        holds="config.json without keys that have defaults",
        family="roberta",
        modules=MEAN,
        edits=(drops(_CONFIG, *(set(_DEFAULTS) - {"type_vocab_size"})),),
        expected=GRAPH,
    )


def prompt_cases() -> Iterator[Case]:
    """Yield cases of prompts in config_sentence_transformers.json."""
    for holds, (edits, expected) in _WITH_PROMPTS.items():
        yield Case(name=f"bert: {holds}", holds=holds, family="bert", modules=MEAN,
                   edits=edits, expected=expected)  # fmt: skip


def _made(family: str, holds: str, expected: Outcome, **config: object) -> Case:
    return Case(name=f"{family}: {holds}", holds=holds, family=family, modules=MEAN,
                config=config, expected=expected)  # fmt: skip
