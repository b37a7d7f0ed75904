"""The operator table: what a quantizer must know about an operator, one row each.

`Op.kind` says how placement treats the operator:

    layer   has a weight: input 0 and output are activations, the weight is an integer initializer, the bias int32
    matmul  either side may be the weight; both activations otherwise
    act     every float input and every output is an activation with a range of its own
    same    the output has the values of the input: one scale for both
    clamp   Relu or Clip: absorbed by the quantizer behind it where that is exact
    fixed   as `act`, but the output range is known beforehand (`range`)

What has no row stays float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["layer", "matmul", "act", "same", "clamp", "fixed"]


@dataclass(frozen=True)
class Op:
    """One row.

    data          which inputs are activations; None: all
    reads_float   computed in float whatever we do: its input is left alone, its output quantized for the next reader
    """

    kind: Kind
    weight_axis: int = 0  # output-channel axis of the weight
    data: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None
    reads_float: bool = False
    fuses: bool = True  # onnxruntime's CPU provider has an integer kernel, or drops the Q/DQ around it
    kernels: tuple[str, ...] = ()  # names of the integer kernels in onnxruntime's optimized graph


_SAME = Op("same", data=(0,))
_SAME_FLOAT = Op("same", data=(0,), fuses=False)

CPU: dict[str, Op] = {
    "Conv": Op("layer", weight_axis=0, kernels=("QLinearConv",)),
    "ConvTranspose": Op("layer", weight_axis=1, fuses=False),
    "Gemm": Op("layer", weight_axis=1, kernels=("QGemm",)),
    "MatMul": Op("matmul", kernels=("QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "MatMulNBits")),
    "Add": Op("act", kernels=("QLinearAdd",)),
    "Mul": Op("act", kernels=("QLinearMul",)),
    "Concat": Op("act", kernels=("QLinearConcat",)),
    "AveragePool": Op("act", kernels=("QLinearAveragePool",)),
    "GlobalAveragePool": Op("act", kernels=("QLinearGlobalAveragePool",)),
    "LeakyRelu": Op("act", kernels=("QLinearLeakyRelu",)),
    "LayerNormalization": Op("act", data=(0,), reads_float=True, fuses=False),
    "Softmax": Op("fixed", range=(0.0, 1.0), kernels=("QLinearSoftmax",)),
    "Sigmoid": Op("fixed", range=(0.0, 1.0), kernels=("QLinearSigmoid",)),
    "Relu": Op("clamp"),
    "Clip": Op("clamp", data=(0,)),
    "DepthToSpace": _SAME,
    "Expand": _SAME,
    "Flatten": _SAME,
    "Gather": _SAME,
    "MaxPool": _SAME,
    "Pad": _SAME_FLOAT,
    "Reshape": _SAME,
    "Resize": _SAME,
    "Slice": _SAME,
    "SpaceToDepth": _SAME_FLOAT,
    "Split": _SAME,
    "Squeeze": _SAME,
    "Tile": _SAME,
    "Transpose": _SAME,
    "Unsqueeze": _SAME,
}
"""Operators quantized for the CPU target."""

SHAPE_OPS = frozenset({"Shape", "Size", "NonZero", "ConstantOfShape", "Range"})
"""Operators whose output is a shape, an index or made from one: whatever is computed from them alone stays float."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
