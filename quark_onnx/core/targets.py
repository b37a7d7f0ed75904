"""Execution targets: what a runtime needs a quantized model to look like, one row each.

`QuantizationConfig.target` names the row. A row decides what the configuration leaves open, refuses what the target
cannot run, and tells placement where quantizers stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quark_onnx.core.ops import CPU, Op


@dataclass(frozen=True)
class Target:
    """One row.

    meaning           what it is, in words
    ops               its operator table
    activation_types  types that it runs; empty: all
    weight_types      likewise
    symmetric         activations must have their zero point in the middle
    pow2              scales must be powers of two
    reduce_range      weights use 7 of 8 bits
    bias_bits         32: at input scale · weight scale; 8 or 16: with a scale of its own; None: float
    align             operator types whose inputs and outputs share one scale, beyond those that only move values
    inputs_only       quantizers stand on the inputs of layers and on one branch of residual additions; nowhere else
    keeps_clamps      no quantizer takes a Relu or Clip in, unless it stands behind it
    minimum_range     no range of an activation is narrower
    """

    name: str
    meaning: str
    ops: Mapping[str, Op]
    activation_types: tuple[str, ...] = ()
    weight_types: tuple[str, ...] = ()
    symmetric: bool = False
    pow2: bool = False
    reduce_range: bool = False
    bias_bits: int | None = 32
    align: tuple[str, ...] = ()
    inputs_only: bool = False
    keeps_clamps: bool = False
    minimum_range: float = 0.0


TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target("cpu", "onnxruntime's CPU provider on processors with VNNI, AMX or ARM dot products", CPU),
        Target(
            "cpu-avx2",
            "onnxruntime's CPU provider on older x64 processors, whose sums of products saturate above 7-bit weights",
            CPU,
            reduce_range=True,
        ),
        Target(
            "tensorrt",
            "NVIDIA TensorRT, also as provider of onnxruntime",
            CPU,
            activation_types=("int8",),
            weight_types=("int8", "int4"),
            symmetric=True,
            bias_bits=None,
            inputs_only=True,
        ),
        Target(
            "qnn",
            "Qualcomm's QNN provider (HTP)",
            CPU,
            activation_types=("uint8", "uint16"),
            weight_types=("int8", "uint8", "int4"),
            align=("Concat",),
            minimum_range=1e-4,
        ),
        Target(
            "vitisai",
            "AMD's VitisAI provider, NPUs for convolutional nets with power-of-two scales (XINT8)",
            CPU,
            activation_types=("int8", "uint8"),
            weight_types=("int8",),
            symmetric=True,
            pow2=True,
            bias_bits=8,
            align=("Concat", "AveragePool", "GlobalAveragePool"),
        ),
    )
}
"""All targets by name."""
