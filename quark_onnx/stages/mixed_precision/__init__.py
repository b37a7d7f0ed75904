"""Automatic mixed precision: the layers that can do with the narrower types, by what they cost at the model's outputs.

    1  a score of the float model with what moves with each layer alone in the narrower types: weight, input and output
    2  layers ranked by it, least harmful first
    3  of the models whose first n layers are narrow, and the others wide, the one with the largest n that still meets
       the threshold, found by bisection

As AIMET's and Quark's searches do, it takes the harm of layers to add up. To rank costs one run on the probe samples
per layer, all in one session with switches (`engine/switchable_model`): as written, so that no processor has a say, and
without what the wider types lose, which all layers share. What is verified, and bisected, are models as users get them;
log2 of their number. The same ranking answers the opposite question, which layers of an 8-bit model need 16 bits: all
but the first n.
"""

from quark_onnx.stages.mixed_precision.layer_search import Mixed, mix

__all__ = ["Mixed", "mix"]
