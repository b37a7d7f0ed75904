"""The operator tables: what a quantizer must know about an operator, one row each, one table per kind of target.

`Op.kind` says how placement treats the operator:

    layer     has a weight: input 0 and output are activations, weight and bias are integer initializers
    matmul    either side may be the weight; both activations otherwise
    norm      a normalization: scale and bias are integer initializers, without channels
    act       every float input and every output is an activation with a range of its own
    fixed     as `act`, but the output range is known beforehand (`range`)
    same      the output has the values of the input: one scale for both
    clamp     Relu or Clip: taken in by the operator in front of it; alone, an `act` where all is computed on integers
    residual  an addition that a convolution in front of it takes in: the other branch carries a quantizer

What has no row stays float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["layer", "matmul", "norm", "act", "fixed", "same", "clamp", "residual"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Op:
    """One row.

    weight_axis  output-channel axis of the weight
    per_channel  the target runs weights with a scale per channel
    data         which inputs are activations; None: all
    exact        constant inputs that must survive rounding unchanged; else the operator stays float
    range        the output range, known beforehand
    wide_range   the only output range that the target runs in 16 bits
    takes        operators behind it that it runs together with: one quantizer, behind the last of them
    needs_weight runs on integers only where one side is constant: products of two activations stay float
    joins        hands on codes of several inputs where these share a scale, without computing anything
    zero_at_0    runs on integers only where the zero point of what it reads is 0; what joins channels takes any
    adds_bias    takes in the constant Add behind it, in its float accumulator
    fuses        the target has an integer kernel, or drops the Q/DQ around it
    kernels      names of the integer kernels in onnxruntime's optimized graph
    float_output its kernels return floats, too, or alone: what it makes counts as floats, and has its own quantizer
                 only where all who read it read integers
    adds_pairs   these kernels add products of neighbouring weights in 16 bits on x64 without VNNI
    ratio        from and to what the scale of an input (in a Mul: the product of both) may be to that of the output;
                 beyond, these kernels fail, or compute sums that do not fit into int32
    needs_float  onnxruntime makes its integer kernel of it whatever type scales have, and then refuses float16 ones:
                 it stays float32 in a float16 model
    """

    kind: Kind
    weight_axis: int = 0
    per_channel: bool = True
    data: tuple[int, ...] | None = None
    exact: tuple[int, ...] = ()
    range: Range | None = None
    wide_range: Range | None = None
    takes: tuple[str, ...] = ()
    needs_weight: bool = False
    joins: bool = False
    zero_at_0: bool = False
    adds_bias: bool = False
    fuses: bool = True
    kernels: tuple[str, ...] = ()
    float_output: bool = False
    adds_pairs: bool = False
    ratio: Range | None = None
    needs_float: bool = False

    def known_range(self, bits: int) -> Range | None:
        """The output range that is known beforehand, for activations of so many bits."""
        return self.wide_range if self.wide_range and bits == 16 else self.range


_SAME = Op("same", data=(0,))
_SAME_FLOAT = Op("same", data=(0,), fuses=False)
_ONE = Op("act", data=(0,))
_ALL = Op("act")
_NORM = Op("norm", data=(0,))
_POOLED = (2.0**-8, 2.0**8)  # ratio / pixels must be from 2⁻³² to 2⁸, and there may be up to 2²⁴ pixels

CPU: dict[str, Op] = {
    "Conv": Op("layer", weight_axis=0, kernels=("QLinearConv",), adds_pairs=True),
    "ConvTranspose": Op("layer", weight_axis=1, fuses=False, float_output=True),
    "Gemm": Op("layer", weight_axis=1, kernels=("QGemm",), float_output=True, adds_pairs=True),
    "MatMul": Op(
        "matmul",
        weight_axis=1,
        adds_bias=True,
        kernels=("QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "MatMulNBits"),
        float_output=True,
        adds_pairs=True,
    ),
    "Add": Op("act", kernels=("QLinearAdd",), ratio=(0.0, 2.0**22)),
    "Mul": Op("act", kernels=("QLinearMul",), ratio=(0.0, 2.0**15)),
    "Concat": Op("act", kernels=("QLinearConcat",), needs_float=True),
    "AveragePool": Op("act", kernels=("QLinearAveragePool",), ratio=_POOLED),
    "GlobalAveragePool": Op("act", kernels=("QLinearGlobalAveragePool",), ratio=_POOLED),
    "LeakyRelu": Op("act", kernels=("QLinearLeakyRelu",)),
    "Identity": Op("act"),  # of `convert`: between two types
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
"""Operators quantized for onnxruntime's CPU provider: those with integer kernels, and what stands between them."""

_ELSEWHERE = {
    name: replace(op, adds_bias=False, fuses=True, kernels=(), float_output=False, adds_pairs=False, ratio=None)
    for name, op in CPU.items()
}
_MOVING = {name: op for name, op in _ELSEWHERE.items() if op.kind == "same"}

TENSORRT: dict[str, Op] = _MOVING | {
    "Conv": Op("layer", weight_axis=0),
    "ConvTranspose": Op("layer", weight_axis=1),
    "Gemm": Op("layer", weight_axis=1),
    "MatMul": Op("matmul"),
    "AveragePool": _ONE,
    "GlobalAveragePool": _ONE,
    "Add": Op("residual"),
}
"""Operators whose inputs TensorRT wants quantized; it fuses or passes all others by itself."""

_FUSED = (
    *("Abs", "Add", "Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "Mul"),
    *("PRelu", "Relu", "Sigmoid", "Tanh"),
)

OPENVINO: dict[str, Op] = {name: op for name, op in _MOVING.items() if name not in ("SpaceToDepth", "Tile")} | {
    "Conv": Op("layer", weight_axis=0, takes=_FUSED, adds_pairs=True),
    "ConvTranspose": Op("layer", weight_axis=1, zero_at_0=True, adds_pairs=True),
    "Gemm": Op("layer", weight_axis=1, adds_pairs=True),
    "MatMul": Op("matmul", weight_axis=1, needs_weight=True, adds_pairs=True),
    "Concat": Op("act", joins=True, zero_at_0=True),
    "Add": Op("residual"),
}
"""Operators whose inputs OpenVINO's CPU plugin wants quantized (`scripts/openvino_operators.py` shows its graph).

What stands behind a convolution it takes in, in float. Pools that average, squeeze and excite, Softmax and what
interpolates are no faster on integers, or run in float; so do a SpaceToDepth or Tile, and then the layers behind them.
"""

QNN: dict[str, Op] = _ELSEWHERE | {
    "MatMul": Op("matmul", per_channel=False),
    "LayerNormalization": _NORM,
    "InstanceNormalization": _NORM,
    "Sigmoid": Op("fixed", range=(0.0, 1.0), wide_range=(0.0, 65535 / 65536)),
    "Tanh": Op("act", wide_range=(-1.0, 32767 / 32768)),
    "Pow": Op("act", exact=(1,)),
    "Where": Op("act", data=(1, 2)),
    **dict.fromkeys(("Sub", "Div", "Min", "Max", "PRelu"), _ALL),
    **dict.fromkeys(("Abs", "Neg", "Exp", "Log", "Sqrt", "Sin", "Cos"), _ONE),
    **dict.fromkeys(("Elu", "Gelu", "HardSigmoid", "HardSwish", "LpNormalization"), _ONE),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _ONE),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _SAME),
}
"""Operators that Qualcomm's HTP runs in fixed point.

16-bit Sigmoid and Tanh have one output scale each: 1/65536 from 0, and 1/32768 around 32768.
"""

_CLAMPS = ("Relu", "Clip", "LeakyRelu", "PRelu")
_UP_TO_ONE = Op("fixed", data=(0,), range=(0.0, 127 / 128))

VITISAI: dict[str, Op] = _ELSEWHERE | {
    "Conv": Op("layer", weight_axis=0, takes=_CLAMPS),
    "ConvTranspose": Op("layer", weight_axis=1, takes=_CLAMPS),
    "Gemm": Op("layer", weight_axis=1, takes=_CLAMPS),
    "MatMul": Op("matmul", takes=_CLAMPS),
    "Add": Op("act", takes=_CLAMPS),
    "AveragePool": Op("act", takes=_CLAMPS),
    "GlobalAveragePool": Op("act", takes=_CLAMPS),
    "MaxPool": replace(_SAME, takes=_CLAMPS),
    "Pad": replace(_SAME, takes=("AveragePool",)),
    "LayerNormalization": _NORM,
    "InstanceNormalization": _NORM,
    "Where": Op("act", data=(1, 2)),
    **dict.fromkeys(("Softmax", "Sigmoid", "HardSigmoid"), _UP_TO_ONE),
    **dict.fromkeys(("Sub", "Div", "Min", "Max", "PRelu"), _ALL),
    **dict.fromkeys(("Erf", "Gelu", "Tanh", "ReduceMean", "LpNormalization"), _ONE),
}
"""Operators of AMD's NPUs for convolutional nets: Quark's list (`npu_cnn`).

What ends in 0..1 has the scale 1/128, not the 1/64 that would hold 1 itself.
"""

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with a matrix or kernel as weight."""

PAIRED_CLIPS = ((0.0, 6.0), (0.0, 1.0))
"""Bounds of a Clip that an operator may take in (`Op.takes`)."""

NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Sqrt", "Abs"})
"""Operators whose output is never negative."""

NEVER_ZERO: Mapping[str, int] = {"Div": 1, "Mod": 1, "Reciprocal": 0, "Log": 0, "Pow": 0}
"""Operators that make infinity or NaN of a 0, and the input at which; a Pow does where its exponent is negative."""

ZERO_OF_ZERO = frozenset({"Abs", "Neg", "Sqrt", "Mul", "Identity"})
"""Operators whose output is 0 where an input is, beside those that only move values."""

SHAPE_OPS = frozenset({"Shape", "Size", "NonZero", "ConstantOfShape", "Range"})
"""Operators whose output is a shape, an index or made from one: whatever is computed from them alone stays float."""

SHAPE_ALONE = frozenset({"Shape", "Size"})
"""Operators that ask for nothing of a tensor but its shape."""

ATTENTION = frozenset(
    {
        "Attention",
        "com.microsoft.DecoderMaskedMultiHeadAttention",
        "com.microsoft.GroupQueryAttention",
        "com.microsoft.MultiHeadAttention",
        "com.microsoft.PackedMultiHeadAttention",
        "com.microsoft.SparseAttention",
    }
)
"""Operators that multiply activations with each other and hold no weight, with the domain where it is not ONNX's."""

SHUTS_OUT = frozenset({"Softmax", "LogSoftmax", "ReduceLogSumExp", "Exp"})
"""Operators behind which nothing is left of −∞."""

TAKES_MASKS: Mapping[str, tuple[int, ...]] = {"Attention": (3,), "MultiHeadAttention": (4, 5)}
"""Whole attentions, of ONNX or com.microsoft, and their masks: floats are added to scores, of others a 0 hides."""

PASSES_MASKS: Mapping[str, tuple[int, ...] | None] = {
    **{name: op.data for name, op in _MOVING.items() if name not in ("MaxPool", "Resize")},
    **dict.fromkeys(("Cast", "Clip", "Div", "GatherND", "Identity", "Trilu"), (0,)),
    **dict.fromkeys(("Pad", "ScatterElements", "ScatterND"), (0, 2)),
    **dict.fromkeys(("Add", "Concat", "Max", "Min", "Mul", "Neg", "Sub", "Sum"), None),
    "Where": (1, 2),
}
"""Operators that a mask goes through on its way to the scores, and the inputs that it comes by; None: any."""

_COMPARES = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
DECIDES = frozenset({"Abs", "And", "Ceil", "Floor", "IsInf", "IsNaN", "Not", "Or", "Round", "Sign", "Xor", *_COMPARES})
"""Operators on elements that say where something is, beside those that pass masks."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators with bodies."""

INTEGER_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
    }
)
"""Operators on integers that no float model has, of any domain; those whose name begins with QLinear are others."""

RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators that give other numbers each time, whatever they are given; a Dropout where it is training."""
