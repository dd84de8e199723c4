"""onnxruntime's own INT8, as a user makes it: `quantize_dynamic` of an FP32 graph, no calibration.

Activations have one scale for a whole tensor, weights one for an output: with one scale for all
of a weight, which is the default, the vectors would hardly be FP32's any more.
"""

from pathlib import Path

from onnx import TensorProto

from sidecar.encoder.graph import build
from sidecar.encoder.recipes import Float32Recipe
from sidecar.host import read_host
from sidecar.models.folder.describe import describe
from sidecar.models.folder.weights import read_encoder
from sidecar.plan import weight_bits

_FULL_BITS = 8


def write(folder: Path, workshop: Path) -> tuple[Path, Path]:
    """Write the model's graph in FP32, and quantized; return both paths."""
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415 - pulls in much

    fp32, int8 = workshop / "fp32.onnx", workshop / "dynamic.onnx"
    graph = build(read_encoder(folder, describe(folder)), Float32Recipe())
    fp32.write_bytes(graph.SerializeToString())
    quantize_dynamic(
        fp32,
        int8,
        per_channel=True,
        # Where sums of 8-bit products would saturate.
        reduce_range=weight_bits(read_host()) < _FULL_BITS,
        # Shapes behind contrib operators are unknown to it; every tensor here is float.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    return fp32, int8
