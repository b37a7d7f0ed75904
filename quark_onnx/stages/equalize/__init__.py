"""Cross-layer equalization: factors per channel between layers, so that all channels of a weight are of one size.

For W1 → f → W2 with f(t x) = t f(x):  rows of W1, and b1, times t; columns of W2 divided by t. A Clip(0, M) is such an
f only while M is not felt: it stays in the graph, channels that reach M on the data are left alone, and no factor lifts
another channel to M. The outputs stay what they were, but for rounding.

Absorbing: where a channel never goes below c > 0 in front of a Relu, b1 loses c and b2 gains W2 c.
"""

from quark_onnx.stages.equalize.channel_factors import Equalized, equalize, tensors_needed
from quark_onnx.stages.equalize.rescaled_model import rescale

__all__ = ["Equalized", "equalize", "rescale", "tensors_needed"]
