"""Range learning: ranges of activations and weights, with the weights and biases, layer by layer (AIMET's two schemes).

AIMET learns them in training, end to end; here each layer learns from the float one (its mathematics is in
`numerics.layer.range_learning`), on what the layers before it, as learned, now feed it. A layer is changed only if
samples held out say that it helps. The range of an activation is learned at the first layer that reads it, that of an
output which no layer reads at the layer that computes it; then it stays.
"""

from quark_onnx.stages.range_learning.layer_by_layer import learn

__all__ = ["learn"]
