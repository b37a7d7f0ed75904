"""How much the outputs care about noise in each channel, from the weights alone: their squares, propagated backwards.

Noise of variance 1 in input channel c of a layer is noise of Σ W[o, c, k]² in its output o. What does not mix channels
passes the gain of its output on to its inputs; readers of one tensor add up. A tensor with a reader that is not
understood has no entry, and counts as one whose channels are all alike.
"""

from quark_onnx.stages.channel_importance.propagation import channel_importance

__all__ = ["channel_importance"]
