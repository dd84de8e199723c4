"""A small model, written without torch, which takes seconds to load."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

_WIDTH, _INNER, _LAYERS, _WORDS, _PLACES = 64, 128, 2, 30_522, 98
_CONFIG = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
    "hidden_size": _WIDTH, "intermediate_size": _INNER, "layer_norm_eps": 1e-12,
    "max_position_embeddings": _PLACES, "num_attention_heads": 4, "num_hidden_layers": _LAYERS,
    "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": _WORDS,
}  # fmt: skip
_PREFIX = "sentence_transformers.models."
_PARTS = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def write_small(folder: Path, tokenizer: Path, **config: object) -> Path:
    """Write an embedder with random weights into `folder`, with the tokenizer of another model."""
    (folder / "1_Pooling").mkdir(parents=True)
    _write(folder / "config.json", {**_CONFIG, **config})
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": _PREFIX + kind}
        for number, (path, kind) in enumerate(_PARTS)
    ]
    _write(folder / "modules.json", modules)
    pooling = {"word_embedding_dimension": _WIDTH, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", pooling)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    save_file(_weights(), folder / "model.safetensors", {"format": "pt"})
    return folder


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _weights() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}

    def normal(*shape: int) -> np.ndarray:
        return chance.normal(0, 0.06, shape).astype(np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.LayerNorm.weight"] = 1 + normal(_WIDTH)
        weights[f"{name}.LayerNorm.bias"] = normal(_WIDTH)

    def linear(name: str, rows: int, columns: int) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = normal(rows, columns), normal(rows)

    for table, rows in (("word", _WORDS), ("position", _PLACES), ("token_type", 2)):
        weights[f"embeddings.{table}_embeddings.weight"] = normal(rows, _WIDTH)
    norm("embeddings")
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", _WIDTH, _WIDTH)
        linear(f"{layer}.attention.output.dense", _WIDTH, _WIDTH)
        norm(f"{layer}.attention.output")
        linear(f"{layer}.intermediate.dense", _INNER, _WIDTH)
        linear(f"{layer}.output.dense", _WIDTH, _INNER)
        norm(f"{layer}.output")
    linear("pooler.dense", _WIDTH, _WIDTH)
    return weights
