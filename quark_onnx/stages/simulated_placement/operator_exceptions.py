"""What holds whatever the configuration says: scales per channel, and the exceptions of single operators."""

from __future__ import annotations

from quark_onnx.core.settings.aimet_runtime_config import OpRule, RuntimeConfig
from quark_onnx.graph import Value
from quark_onnx.graph.view import input_at
from quark_onnx.stages.simulated_placement.aimet_operators import MATRIX_OPS, NO_WIDE_KERNELS, NORMS, NORMS_LIKE_OUTPUT
from quark_onnx.stages.simulated_placement.quantizers import Board, Quantizer
from quark_onnx.stages.simulated_placement.shared_quantizers import effective
from quark_onnx.stages.simulated_placement.units import Unit

WIDE = 16
"""Bits from which the weights of a normalization are symmetric."""


def per_channel(board: Board, config: RuntimeConfig) -> dict[str, str]:
    """Axes of parameters whose operator has a scale per channel.

    Returns:
        Remarks on parameters that have no axis of channels.
    """
    remarks = {}
    for unit, _, quantizer in board.params():
        if config.per_channel_of(unit.type):
            quantizer.axis = unit.channel_axis(quantizer.owner)
            if quantizer.axis is None:
                remarks[quantizer.owner.name or ""] = f"one scale: {unit.type} has no axis of channels to count along"
    return remarks


def exceptions(board: Board, config: RuntimeConfig) -> None:
    """The rules in AIMET's order: weights that are computed, then operator by operator."""
    for unit in board.circuit.units:
        if unit.type in MATRIX_OPS and not unit.params.get("weight"):
            _computed_weight(board, unit, config)
    for unit in board.circuit.units:
        if unit.type in (*NORMS, *NORMS_LIKE_OUTPUT):
            _norm(board, unit, config)
        elif unit.type == "MatMul" and not unit.params:
            _product(board, unit, config)
        elif unit.type == "ConvTranspose" and unit.nodes[0].attributes.get_int("group", 1) != 1:
            _one_scale(board, unit)


def _computed_weight(board: Board, unit: Unit, config: RuntimeConfig) -> None:
    """A weight that is computed at run time is symmetric as a constant one would be."""
    quantizer = _behind_input(board, unit, 1)
    if quantizer is not None:
        own = config.op_types.get(unit.type, OpRule()).params.get("weight")
        said = own.symmetric if own is not None and own.symmetric is not None else config.param.symmetric
        quantizer.symmetric = bool(said)


def _behind_input(board: Board, unit: Unit, index: int) -> Quantizer | None:
    value: Value | None = input_at(unit.nodes[-1], index)
    return None if value is None else effective(board, value).quantizer


def _norm(board: Board, unit: Unit, config: RuntimeConfig) -> None:
    behind = board.outputs(unit)[:1]
    output = behind[0] if behind and behind[0].on else None
    for quantizer in (board.of[value] for value in unit.params.values() if value in board.of):
        if not quantizer.on:
            continue
        quantizer.bits = max(quantizer.bits, 8)
        if unit.type in NORMS:
            quantizer.bits = 8 if config.hw_version in NO_WIDE_KERNELS else quantizer.bits
            quantizer.symmetric = quantizer.bits >= WIDE
        else:
            quantizer.bits = quantizer.bits if output is None else output.bits
            quantizer.symmetric = output is not None and output.symmetric


def _product(board: Board, unit: Unit, config: RuntimeConfig) -> None:
    """A product of two activations: the second is the weight to the hardware, 8 bits wide or symmetric."""
    first, second = (_behind_input(board, unit, index) for index in (0, 1))
    if config.hw_version is None or first is None or second is None:
        return
    if config.hw_version in NO_WIDE_KERNELS:
        second.symmetric, second.bits = True, 8
    elif second.bits == WIDE:
        second.symmetric, first.bits = True, WIDE


def _one_scale(board: Board, unit: Unit) -> None:
    weight = unit.params.get("weight")
    if weight in board.of:
        board.of[weight].axis = None
