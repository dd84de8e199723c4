"""infinity on onnxruntime: FOLDER, MAX_TOKENS, a PLACE for the model, then infinity's own flags.

The model is exported and quantized as its documentation tells to, and then served.
"""

import json
import os
import sys
from pathlib import Path

from onnxruntime.quantization import quantize_dynamic
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer


def write(folder: Path, max_tokens: int, place: Path) -> None:
    """Write the model to `place`, quantized, such that texts are cut at `max_tokens`."""
    fp32 = place / "fp32"
    ORTModelForFeatureExtraction.from_pretrained(folder, export=True).save_pretrained(fp32)
    # With one scale for all of a weight, the vectors would hardly be FP32's any more; 7 bits,
    # because sums of 8-bit products saturate on a processor that has AVX2 alone.
    quantize_dynamic(
        fp32 / "model.onnx", place / "model_quantized.onnx", per_channel=True, reduce_range=True
    )
    (fp32 / "model.onnx").unlink()  # it takes whichever it finds
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["max_position_embeddings"] = max_tokens  # where it cuts
    (place / "config.json").write_text(json.dumps(config), "utf-8")
    AutoTokenizer.from_pretrained(folder).save_pretrained(place)


def main(folder: str, max_tokens: str, place: str, *flags: str) -> None:
    write(Path(folder), int(max_tokens), Path(place))
    os.chdir(place)  # it compares the names of files with its paths to them: they have to be one
    infinity = str(Path(sys.executable).with_name("infinity_emb"))
    os.execv(infinity, [infinity, "v2", "--engine", "optimum", "--model-id", ".", *flags])


if __name__ == "__main__":
    main(*sys.argv[1:])
