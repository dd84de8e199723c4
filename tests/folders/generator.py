"""Writes the folder of a case with the library's own classes, then applies its edits."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .case import Case, Module
from .vocabularies import MAX_TOKENS, SIZE, dump, write_tokenizer

WIDTH = 32
_SMALL = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 66, "vocab_size": SIZE, "num_labels": 1,
}  # fmt: skip
_ROBERTA = {**_SMALL, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DISTILBERT = {
    "dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
    "max_position_embeddings": 66, "vocab_size": SIZE, "num_labels": 1,
}  # fmt: skip
_MODERNBERT = {
    **_SMALL, "local_attention": 16, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3,
    "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
# Family -> its class prefix in transformers, its tokenizer and its config.
_FAMILIES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "bert": ("Bert", "wordpiece", _SMALL),
    "roberta": ("Roberta", "bpe", _ROBERTA),
    "xlm-roberta": ("XLMRoberta", "unigram", _ROBERTA),
    "mpnet": ("MPNet", "mpnet", {**_SMALL, "relative_attention_num_buckets": 32}),
    "distilbert": ("DistilBert", "distilbert", _DISTILBERT),
    "electra": ("Electra", "electra", {**_SMALL, "embedding_size": WIDTH}),
    "camembert": ("Camembert", "camembert", _ROBERTA),
    "ernie": ("Ernie", "wordpiece", _SMALL),
    "albert": ("Albert", "albert", {**_SMALL, "embedding_size": 16}),
    "modernbert": ("ModernBert", "modernbert", _MODERNBERT),
    "nomic_bert": ("NomicBert", "wordpiece", _SMALL),
    "xlm-roberta-xl": ("XLMRobertaXL", "unigram", _ROBERTA),
}
_LIBRARY = "sentence_transformers.models."


def write(case: Case, folder: Path) -> Path:
    """Write the folder of `case` to `folder`, which must not exist, and return it.

    Weights shared by many cases are created once, in a folder beside it.
    """
    if case.family == "static":
        _write_static(case, folder)
    else:
        shutil.copytree(_base(case, folder.parent), folder)
        write_tokenizer(case.tokenizer or _FAMILIES[case.family][1], folder)
        if not case.classifier and case.modules is not None:
            write_modules(folder, (Module("Transformer"), *case.modules))
    for edit in case.edits:
        edit(folder)
    return folder


def write_modules(folder: Path, modules: tuple[Module, ...]) -> None:
    """Write modules.json and each module's folder; the first module is in `folder` itself."""
    listed = []
    for index, module in enumerate(modules):
        path = f"{index}_{module.kind}" if index else ""
        kind = module.kind if "." in module.kind else _LIBRARY + module.kind
        listed.append({"idx": index, "name": str(index), "path": path, "type": kind})
        if index:
            _write_module(folder / path, module)
    dump(folder / "modules.json", listed)
    if modules[0].kind == "Transformer":
        limits = {"max_seq_length": MAX_TOKENS, "do_lower_case": False}
        dump(folder / "sentence_bert_config.json", limits)


def _write_module(folder: Path, module: Module) -> None:
    folder.mkdir(parents=True)
    if module.config:
        dump(folder / "config.json", module.config)
    if shapes := _shapes(module):
        _write_tensors(folder, shapes)


def _shapes(module: Module) -> Mapping[str, tuple[int, ...]]:
    config = module.config
    if module.kind == "LayerNorm":
        width = config["dimension"]
        return {"norm.weight": (width,), "norm.bias": (width,)}
    if module.kind != "Dense":
        return {}
    weight = {"linear.weight": (config["out_features"], config["in_features"])}
    return {**weight, "linear.bias": (config["out_features"],)} if config["bias"] else weight


def _write_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(7)
    tensors = {name: torch.randn(shape, generator=random) / 6 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _write_static(case: Case, folder: Path) -> None:
    folder.mkdir()
    write_tokenizer(case.tokenizer or "wordpiece", folder)
    _write_tensors(folder, {"embedding.weight": (SIZE, WIDTH)})
    write_modules(folder, (Module("StaticEmbedding"), *(case.modules or ())))


def _base(case: Case, beside: Path) -> Path:
    """Return a folder with config.json and random weights, created on first use."""
    made_of = f"{case.family} {case.classifier} {sorted(case.config.items())}"
    folder = beside / f".{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    import torch
    import transformers

    name, _, small = _FAMILIES[case.family]
    config = getattr(transformers, f"{name}Config")(**{**small, **case.config})
    kind = "ForSequenceClassification" if case.classifier else "Model"
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}{kind}")(config)
    with torch.no_grad():  # larger than at initialisation, so that errors become visible
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
