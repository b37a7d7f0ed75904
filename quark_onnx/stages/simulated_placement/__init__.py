"""Simulated placement: the quantizers that AIMET would set under a runtime configuration, as an ordinary plan.

Unlike `place`, which looks for what onnxruntime runs on integers, this simulates other hardware: almost every float32
tensor carries a quantizer, and the names are those of the user's model.

It decides as aimet-onnx 2.42 does, with these exceptions. Where that stops with an error: ranges known on both sides of
a Relu that do not agree stay two; scales per channel of a weight without channels are one; inputs that are asked for
beat what is known of operators that move values. Where it misses a pattern: a LayerNormalization is found whether axes
are attributes or inputs, and only where its square is one. The scale and bias of a normalization are constants. The
input of a recurrent operator has a range of its own; a Concat without quantizer ties nothing; only float32 counts.
"""

from quark_onnx.stages.simulated_placement.sites import Simulated, around, simulated_sites

__all__ = ["Simulated", "around", "simulated_sites"]
