"""BatchNormalization in inference mode, read as one scale and one shift per channel (axis 1).

γ (x − μ) / √(σ² + ε) + β  =  k x + s,      k = γ / √(σ² + ε),   s = β − k μ
"""

from __future__ import annotations

import numpy as np

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node
from quark_onnx.graph.view import constant, input_at
from quark_onnx.stages.prepare.affine_layer import Array


@np.errstate(all="ignore")  # what is not finite is refused
def scale_and_shift(bn: Node) -> tuple[Array, Array] | Skip:
    """(k, s), or why the node cannot be read that way."""
    if bn.attributes.get_int("training_mode", 0):
        return Skip("it is in training mode")
    if any(output.name for output in bn.outputs[1:]):  # before opset 14 these are what says so
        return Skip("it has outputs of the training mode")
    parameters = [constant(input_at(bn, index)) for index in range(1, 5)]
    if any(array is None or array.ndim != 1 for array in parameters):
        return Skip("a parameter is not a constant vector")
    if len({array.size for array in parameters if array is not None}) > 1:
        return Skip("its parameters have different sizes")
    gamma, beta, mean, variance = (array.astype(np.float64) for array in parameters if array is not None)
    k = gamma / np.sqrt(variance + bn.attributes.get_float("epsilon", 1e-5))
    s = beta - k * mean
    if not (np.isfinite(k).all() and np.isfinite(s).all()):
        return Skip("variance + epsilon is not positive, or a parameter is not finite")
    return k, s
