"""Moves biases to where adding them is free: the same function with fewer passes.

A residual sum is normalised, `norm(x + (W y + b))`, and x is itself the output of a norm. Adding b
to that norm's bias gives x' = x + b, so the sum needs no bias. Everything else that reads x now
reads x' and subtracts `V b` in a bias that it has anyway.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sidecar.encoder.architecture import (
    Embeddings,
    Encoder,
    Float32,
    Layer,
    Layers,
    Linear,
    Norm,
)


def folded(encoder: Encoder) -> Encoder:
    """Return `encoder` with the biases before residual sums folded away.

    Layers are read on access, like those of `encoder`.
    """
    layers = encoder.layers
    attention = [layer.attention_output.bias for layer in layers]
    if not attention:
        return encoder
    return replace(
        encoder,
        embeddings=_embeddings(encoder.embeddings, attention[0]),
        layers=Layers(len(layers), lambda index: _folded(layers[index], attention, index)),
    )


def _folded(layer: Layer, attention: Sequence[Float32], index: int) -> Layer:
    last = index == len(attention) - 1  # the model's output must not change
    output_norm = layer.output_norm if last else _shifted(layer.output_norm, attention[index + 1])
    return Layer(
        query_key_value=_compensated(layer.query_key_value, attention[index]),
        attention_output=_without_bias(layer.attention_output),
        attention_norm=_shifted(layer.attention_norm, layer.down.bias),
        up=_compensated(layer.up, layer.down.bias),
        down=_without_bias(layer.down),
        output_norm=output_norm,
    )


def _embeddings(tables: Embeddings, by: Float32) -> Embeddings:
    """Return the tables with their final output, after norm and projection, shifted by `by`."""
    if tables.projection is not None:
        shifted = replace(tables.projection, bias=tables.projection.bias + by)
        return replace(tables, projection=shifted)
    assert tables.norm is not None  # every family with layers has one
    return replace(tables, norm=_shifted(tables.norm, by))


def _shifted(norm: Norm, by: Float32) -> Norm:
    return replace(norm, bias=norm.bias + by)


def _compensated(linear: Linear, more: Float32) -> Linear:
    """Return the layer that gives the same output for an input larger by `more`."""
    return replace(linear, bias=linear.bias - linear.weight @ more)


def _without_bias(linear: Linear) -> Linear:
    return replace(linear, bias=np.zeros_like(linear.bias))
