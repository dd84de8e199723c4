"""With onnxruntime in FP32, written by hand: `python -m bench.apps.in_onnxruntime ARTIFACT`.

No lighter one is known that leaves the engine's settings as they are: the graph's weights lie
in a file beside it, which is mapped, and what is not laid out anew is there once for all
processes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from bench.apps import serve


def main(artifact: Path) -> None:
    session = ort.InferenceSession(str(artifact / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokenizer.no_padding()
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    tokenizer.enable_truncation(manifest["description"]["max_tokens"])

    def embed(texts: list[str]) -> None:
        for encoding in tokenizer.encode_batch(texts):
            ids, types = np.array([encoding.ids]), np.array([encoding.type_ids])
            (vectors,) = session.run(["vectors"], {"ids": ids, "token_types": types})
            vectors /= np.linalg.norm(vectors)

    serve(embed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
