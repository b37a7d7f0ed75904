"""Prepare: a float model in, an equal float model out, in the shape that placement expects.

    lift       functions inlined, Constant nodes become initializers, every node gets a name
    opset      one that has what the formats need, and whose quantizers onnxruntime implements
    standard   operators of com.microsoft become those of ONNX that they were made of (`microsoft`)
    fold       what depends on constants and known dimensions only, ConstantOfShape included; not what
               would only make the file larger
    rewrite    one rule per file of this folder, each with its algebra
    clean      dead nodes and constants go, shapes are inferred anew
    unshare    constants that two readers would quantize in different ways get copies
    convert    an Identity in front of readers that want a tensor in another type

The outputs stay what they were, but for the rounding of folded constants. The caller's model is never touched, and
equal models come out equal, names included.
"""

from quark_onnx.stages.prepare.rewriting import Prepared, prepare
from quark_onnx.stages.prepare.taken_branches import Conditions

__all__ = ["Conditions", "Prepared", "prepare"]
