"""Biases moved to where adding them costs nothing: the same function with fewer passes.

What is added to a residual is normalised again, `norm(x + (W y + b))`, and x itself comes out of
a norm. With b in that norm's own bias, x' = x + b, the sum behind needs no bias any more; what
else reads x is given x' and takes `V b` back in a bias that it has anyway.
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
    """Return `encoder` with no bias in front of a residual's sum.

    Its layers are read when they are asked for, as those of `encoder` are.
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
    last = index == len(attention) - 1  # what comes out of the model is not to be changed
    behind = layer.output_norm if last else _raised(layer.output_norm, attention[index + 1])
    return Layer(
        query_key_value=_given(layer.query_key_value, attention[index]),
        attention_output=_without_bias(layer.attention_output),
        attention_norm=_raised(layer.attention_norm, layer.down.bias),
        up=_given(layer.up, layer.down.bias),
        down=_without_bias(layer.down),
        output_norm=behind,
    )


def _embeddings(tables: Embeddings, by: Float32) -> Embeddings:
    """Return the tables whose sum, behind all that is done to it, is larger by `by`."""
    if tables.projection is not None:
        raised = replace(tables.projection, bias=tables.projection.bias + by)
        return replace(tables, projection=raised)
    assert tables.norm is not None  # every family with layers has one
    return replace(tables, norm=_raised(tables.norm, by))


def _raised(norm: Norm, by: Float32) -> Norm:
    return replace(norm, bias=norm.bias + by)


def _given(linear: Linear, more: Float32) -> Linear:
    """Return the layer that gives the same where its input is larger by `more`."""
    return replace(linear, bias=linear.bias - linear.weight @ more)


def _without_bias(linear: Linear) -> Linear:
    return replace(linear, bias=np.zeros_like(linear.bias))
