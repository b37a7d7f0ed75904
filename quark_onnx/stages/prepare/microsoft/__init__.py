"""Operators that onnxruntime's optimizers leave in a file, as those of ONNX that they were made of.

A weight inside of one of them is out of reach of every quantizer, and of what one of them computes neither ONNX's shape
inference nor its converters know anything. onnxruntime makes the same kernels of what is written here when it loads the
model, where they still pay. What multiplies two activations stays whole: see `attention_weights`.
"""

from quark_onnx.stages.prepare.microsoft.as_standard import as_standard, better_opsets, still_inside

__all__ = ["as_standard", "better_opsets", "still_inside"]
