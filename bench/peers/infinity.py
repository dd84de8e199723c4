"""infinity: a server of embeddings with two engines, torch and onnxruntime."""

from collections.abc import Sequence
from pathlib import Path

from bench.peers.peer import INSIDE, TORCH, Peer, Service, Setting
from sidecar.encoder.architecture import Pooling
from sidecar.models.folder.describe import describe


def _torch(python: Path, port: int, setting: Setting) -> Sequence[str]:
    infinity = str(python.with_name("infinity_emb"))
    model = ("--model-id", str(setting.folder))
    return (infinity, "v2", "--engine", "torch", *model, *_flags(port))


def _onnxruntime(python: Path, port: int, setting: Setting) -> Sequence[str]:
    # On this engine it would not read it from the model's folder, and take the first token.
    pooling = "mean" if describe(setting.folder).pooling == (Pooling.MEAN,) else "cls"
    model = (setting.folder, setting.max_tokens, setting.workshop / "model")
    command = (str(python), str(INSIDE / "infinity_onnx.py"), *map(str, model))
    return (*command, "--pooling-method", pooling, *_flags(port))


def _flags(port: int) -> Sequence[str]:
    place = ("--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1")
    return ("--device", "cpu", "--served-model-name", "model", *place)


PEER = Peer(
    "infinity",
    (
        "infinity-emb[torch,optimum,server,logging]==0.0.78",
        TORCH,
        "fastapi==0.165.0",
        "onnxruntime==1.32.0",
        "optimum==2.1.0",
        "optimum-onnx==0.1.0",
        "sentence-transformers==3.4.1",
        "transformers==4.57.6",
    ),
    (
        Service("infinity, torch FP32", _torch),
        Service("infinity, onnxruntime INT8", _onnxruntime),
    ),
)
