"""Execution targets: what a runtime needs a quantized model to look like, one row each.

`QuantizationConfig.target` names the row. A row decides what the configuration leaves open, refuses what the target
cannot run, and tells placement where quantizers stand.

Sources: onnxruntime's CPU provider as measured; for TensorRT its guide to explicit quantization and NVIDIA's ModelOpt;
for QNN onnxruntime's `get_qnn_qdq_config` and Qualcomm's operator definitions; for VitisAI AMD Quark's XINT8; for
OpenVINO the graph that its CPU plugin executes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Pairs
from quark_onnx.core.operators import CPU, OPENVINO, QNN, TENSORRT, VITISAI, Op

POOLS = ("AveragePool", "GlobalAveragePool")
"""Operators that the option AlignPool is about."""

PAIRS = {
    "auto": "int8 with safe pairs; uint8 with zero point 128, exact and slower, where these would cost a layer much",
    "safe": "int8 with safe pairs throughout",
    "uint8": "uint8 with zero point 128 throughout; OpenVINO has no kernels for it",
    "off": "int8, rounded freely: for processors with VNNI alone",
}
"""How weights of CPU targets keep sums of two products within the 16 bits in which x64 without VNNI adds them."""


@dataclass(frozen=True)
class Target:
    """One row.

    title             short name, for messages
    meaning           what it is, in words
    ops               its operator table
    activation_types  types that it runs; where none is named, all
    weight_types      likewise
    symmetric         activations must have their zero point in the middle
    pow2              scales must be powers of two
    per_channel       weights may have a scale per channel
    blocks            … or one for every few neighbours
    reduce_range      weights use 7 of 8 bits
    bias_bits         32: at input scale · weight scale; 8 or 16: with a scale of its own; None: float
    align             operator types whose inputs and outputs must share one scale, beyond those that only move values
    shifts            layers and sums rescale by shifts of a few bits: positions of scales must lie near each other
    inputs_only       quantizers stand on the inputs of layers and on one branch of residual additions; nowhere else
    hands_on          … and in front of what moves or joins values, which hands codes on: none behind it
    fixed_point       all arithmetic is on integers: operators are quantized for whatever reader, clamps also alone
    shown_float       probabilities that leave the model stay float
    runtime           which one runs it here, so that its fusions can be proven; empty: none does
    unsigned          int8 activations are stored as uint8
    channel_block     above 1: its integer convolutions have channels last, and take so many at a time where these are
                      kept apart
    strides_apart     its integer convolutions of one position have no strides: a pool in front of them passes over
    pairs             which neighbours its kernels add in 16 bits on x64 without VNNI: see `core.number_formats.Pairs`
    minimum_range     no range of an activation is narrower
    """

    name: str
    title: str
    meaning: str
    ops: Mapping[str, Op]
    activation_types: tuple[str, ...] = ()
    weight_types: tuple[str, ...] = ()
    symmetric: bool = False
    pow2: bool = False
    per_channel: bool = True
    blocks: bool = True
    reduce_range: bool = False
    bias_bits: int | None = 32
    align: tuple[str, ...] = ()
    shifts: bool = False
    inputs_only: bool = False
    hands_on: bool = False
    fixed_point: bool = False
    shown_float: bool = True
    runtime: str = ""
    unsigned: bool = False
    channel_block: int = 1
    strides_apart: bool = False
    pairs: Pairs = ""
    minimum_range: float = 0.0

    @property
    def on_cpu(self) -> bool:
        """Whether onnxruntime's CPU provider is meant."""
        return self.runtime == "onnxruntime"

    @property
    def takes_bytes(self) -> bool:
        """Whether it has integer kernels for uint8 weights."""
        return not self.weight_types or "uint8" in self.weight_types

    def adds_pairs(self, op_type: str) -> bool:
        """Whether kernels of this operator add products of neighbouring weights in 16 bits on x64 without VNNI."""
        return op_type in self.ops and self.ops[op_type].adds_pairs

    @property
    def spares_idle(self) -> bool:
        """Whether operators without a weight stay float where integers would buy nothing."""
        return not self.fixed_point and (self.hands_on or not self.inputs_only)

    def refuse_types(self, activation_type: str, weight_type: str) -> None:
        """Nothing, where it runs both.

        Raises:
            ConfigError: it does not.
        """
        asked = [("activation_type", activation_type, self.activation_types)]
        asked += [("weight_type", weight_type, self.weight_types)]
        for name, value, allowed in asked:
            if allowed and value not in allowed:
                raise ConfigError(f"target {self.name!r} runs {name} {' or '.join(allowed)}, not {value!r}")

    def refuse_pairs(self, how: str, weight_type: str) -> None:
        """Nothing, where `weight_pairs` can be so.

        Raises:
            ConfigError: there is nothing to act on, or no kernel for what it asks for.
        """
        if how == "auto":
            return
        if not self.pairs or weight_type != "int8":
            raise ConfigError(f"weight_pairs={how!r} is for int8 weights on CPU targets; leave it out")
        if how == "uint8" and not self.takes_bytes:
            raise ConfigError(f"target {self.name!r} computes in float with uint8 weights; use weight_pairs='safe'")

    def refuse_per_channel(self) -> None:
        """Nothing, where it runs weights with a scale per channel; otherwise a ConfigError."""
        if not self.per_channel:
            raise ConfigError(f"target {self.name!r} runs one scale per weight; remove per_channel=True")

    def aligned(self, concat: bool | None, pool: bool | None) -> frozenset[str]:
        """Operator types whose inputs and outputs share one scale, with the user's AlignConcat and AlignPool."""
        found = set(self.align)
        for wish, op_types in ((concat, ("Concat",)), (pool, POOLS)):
            if wish is not None:
                found = found.union(op_types) if wish else found.difference(op_types)
        return frozenset(found)


TARGETS: dict[str, Target] = {
    row.name: row
    for row in (
        Target(
            "cpu",
            "CPU",
            "onnxruntime's CPU provider on any processor",
            CPU,
            runtime="onnxruntime",
            unsigned=True,
            channel_block=16,
            pairs="row",
        ),
        Target(
            "cpu-avx2",
            "CPU",
            "onnxruntime's CPU provider on older x64 processors, whose sums of products saturate above 7-bit weights",
            CPU,
            reduce_range=True,
            runtime="onnxruntime",
            unsigned=True,
            channel_block=16,
            pairs="row",
        ),
        Target(
            "openvino",
            "OpenVINO",
            "OpenVINO's CPU plugin",
            OPENVINO,
            activation_types=("int8", "uint8"),
            weight_types=("int8",),
            blocks=False,
            bias_bits=None,
            align=("Concat",),
            inputs_only=True,
            hands_on=True,
            runtime="openvino",
            unsigned=True,
            strides_apart=True,
            pairs="tap",
        ),
        Target(
            "tensorrt",
            "TensorRT",
            "NVIDIA TensorRT, also as provider of onnxruntime",
            TENSORRT,
            activation_types=("int8",),
            weight_types=("int8", "int4"),
            symmetric=True,
            bias_bits=None,
            inputs_only=True,
        ),
        Target(
            "qnn",
            "QNN",
            "Qualcomm's QNN provider (HTP)",
            QNN,
            activation_types=("uint8", "uint16"),
            weight_types=("int8", "uint8", "int4"),
            blocks=False,
            align=("Concat",),
            fixed_point=True,
            shown_float=False,
            minimum_range=1e-4,
        ),
        Target(
            "vitisai",
            "VitisAI",
            "AMD's VitisAI provider, NPUs for convolutional nets with power-of-two scales (XINT8)",
            VITISAI,
            activation_types=("int8", "uint8"),
            weight_types=("int8",),
            symmetric=True,
            pow2=True,
            per_channel=False,
            blocks=False,
            bias_bits=8,
            align=("Concat", *POOLS),
            shifts=True,
            fixed_point=True,
        ),
    )
}
"""All targets by name."""
