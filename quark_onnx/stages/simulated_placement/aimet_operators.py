"""Facts about operators that AIMET's simulation of quantization knows beside its configuration: one table per fact.

Measured on aimet-onnx 2.42, see research/aimet.md §2.9 and §4. Operators of another domain are written `domain.Name`.
"""

from __future__ import annotations

from collections.abc import Mapping

_AFFINE = {"weight": 1, "bias": 2}
_RECURRENT = {"weight": 1, "weight_r": 2, "bias": 3}

PARAMS: Mapping[str, Mapping[str, int]] = {
    "Conv": _AFFINE,
    "ConvTranspose": _AFFINE,
    "Gemm": _AFFINE,
    "MatMul": {"weight": 1},
    "BatchNormalization": {**_AFFINE, "running_mean": 3, "running_var": 4},
    "GroupNormalization": _AFFINE,
    "InstanceNormalization": _AFFINE,
    "LayerNormalization": _AFFINE,
    "RMSNormalization": {"weight": 1},
    "GRU": _RECURRENT,
    "LSTM": _RECURRENT,
    "RNN": _RECURRENT,
}
"""Which inputs are parameters when they are constants; all other constants are read as activations."""

CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
"""Axis of the output channels of a parameter with two axes or more."""

TRANSPOSED_AXIS = {"Gemm": 0, "MatMul": -2}
"""The same where the weight is stored as [out, in]."""

MATRIX_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Layers: a weight that is computed at run time is symmetric if their weights are."""

NORMS = ("BatchNormalization", "LayerNormalization")
"""Normalizations whose parameters are symmetric with 16 bits only, whatever is configured."""

NORMS_LIKE_OUTPUT = ("GroupNormalization", "InstanceNormalization", "RMSNormalization")
"""Normalizations whose parameters have the width and the symmetry of the output, whatever is configured."""

NO_WIDE_KERNELS = ("V66", "V68", "V69")
"""Hardware with 8-bit weights only, also those of normalizations and of products of two activations."""

NEVER_BEHIND = frozenset(
    {"Compress", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze"}
)
"""Operators whose output never carries a quantizer."""

GRID_PRESERVING = frozenset(
    {"Col2Im", "Compress", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"}
    | {"Identity", "MaxPool", "MaxRoiPool", "NonZero", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "SplitToSequence", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze"}
    | {"qti_aisw.BatchToSpace", "qti_aisw.SpaceToBatch"}
)
"""Operators whose output holds values of their input: it carries a quantizer only if the configuration names them."""

JOINING = frozenset({"Concat", "Scatter", "ScatterElements", "ScatterND"})
"""Operators whose inputs share the quantizer of their output."""

INHERITING = NEVER_BEHIND | GRID_PRESERVING | JOINING | {"Clip", "Max", "Min", "Where"}
"""Operators on both sides of which a file of version 2.0.0 has one encoding, though only one may have a quantizer."""

REUSING = frozenset({"AveragePool", "Relu", "Resize", "Upsample"})
"""Operators whose output shares the quantizer of their first input."""

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators with a hidden state: one quantizer for it, wherever it appears."""

ONLY_FIRST_INPUT = frozenset({"Resize"})
"""Operators that read data through their first input only; nobody quantizes the others."""
