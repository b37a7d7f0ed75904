"""How much the network cares about noise in each channel, without data: squared weights propagated backwards.

    noise of variance 1 in input channel c of a linear layer is noise of variance Σ_k W[o,c,k]² in its output o,
    so gain(input) = gain(output) · energy

A gain weighs the rows of a layer wherever one choice serves them all: one scale for a tensor, keeping or reverting a
layer. (Without it a row that nobody reads can rule the scale, because its weights are the largest.) Activation
functions count as the identity; the gains of a tensor with several readers add up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quark_onnx.numerics.equalization import channel_matrix
from quark_onnx.numerics.matrix_products import product

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def energies(rows: F32, channels: int) -> F64:
    """(outputs, inputs) Σ over the kernel of W², of a weight (G, R, K) with `channels` inputs per group.

    (outputs,) for a depthwise layer.
    """
    return channel_matrix(np.square(rows, dtype=np.float64).reshape(*rows.shape[:2], channels, -1).sum(-1))


def through(energy: F64, gain: F64) -> F64:
    """Gain of the inputs (inputs,) from the gain of the outputs (outputs,), ones for an output of the model."""
    return energy * gain if energy.ndim == 1 else product(gain, energy)
