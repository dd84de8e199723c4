"""The arithmetic that a model is to be served in, and how close to FP32 it has to be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Precision:
    """`quantization` is "none", "int8", "int4", or "auto": the faster of the first two.

    `weight_bits`, 7 or 8, is what the host's integer multiplication supports without saturating;
    `floor` is the least mean closeness to FP32 (see `Quality`) at which a quantization serves.
    """

    quantization: str
    weight_bits: int
    floor: float
