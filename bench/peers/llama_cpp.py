"""llama.cpp's server, from its wheel, with weights in its 8-bit format."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from bench.peers.peer import BATCH, INSIDE, CannotServeError, Inputs, Peer, Service, Setting


def _command(python: Path, port: int, setting: Setting) -> Sequence[str]:
    family = json.loads((setting.folder / "config.json").read_text("utf-8"))["model_type"]
    if family != "bert":
        raise CannotServeError(f"no file of its format is made of a {family} here")
    model = (setting.folder, setting.workshop / "model.gguf")
    numbers = (setting.max_tokens, BATCH, setting.cores, port)
    return (str(python), str(INSIDE / "llama_server.py"), *map(str, (*model, *numbers)))


def _tokens(setting: Setting) -> Inputs:
    """Send tokens: a text that is longer than the model takes would be refused, not cut."""
    tokenizer = Tokenizer.from_file(str(setting.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(setting.max_tokens)
    return lambda text: tokenizer.encode(text).ids


PEER = Peer(
    "llama.cpp",
    ("xllamacpp==2026.10.11549", "gguf==0.19.0", "numpy==2.4.6", "safetensors==0.8.0"),
    (Service("llama.cpp, q8_0", _command, _tokens),),
)
