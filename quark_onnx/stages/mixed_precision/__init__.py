"""Automatic mixed precision: the layers that can do with the narrower types, by what they cost at the model's outputs.

    1  a score of the model with each layer alone in the narrower types, weight, input and output
    2  layers ranked by it, least harmful first
    3  of the models whose first n layers are narrow, the one with the largest n that still meets the threshold, found
       by bisection

As AIMET's and Quark's searches do, it takes the harm of layers to add up. The cost is one run of the model on the
probe samples per layer, and log2 of their number. The same ranking answers the opposite question, which layers of an
8-bit model need 16 bits: all but the first n.
"""

from quark_onnx.stages.mixed_precision.layer_search import Mixed, mix

__all__ = ["Mixed", "mix"]
