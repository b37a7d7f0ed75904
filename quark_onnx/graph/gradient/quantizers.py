"""Straight through a QuantizeLinear and its DequantizeLinear, where the value is in range; and by their scale.

An integer tensor in between has the gradient of the values that its codes stand for. By a scale s that both read, the
two parts add up to the gradient of learned step sizes (LSQ): Σ dy·(out − x)/s in range, Σ dy·out/s beyond it.
"""

from __future__ import annotations

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Gradients, Step, rank_of
from quark_onnx.graph.view import input_at

RANGES = {
    f"{sign}INT{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "U")
    for bits in (2, 4, 8, 16)
}
"""Lowest and highest code of the types that a QuantizeLinear rounds to."""


def dequantize(step: Step) -> Gradients | Skip:
    """(q − z)·s; by the scale: y/s"""
    found = {0: step.dy}
    if step.wants(1):
        total = _by_scale(step, step.dy, step.y)
        if isinstance(total, Skip):
            return total
        found[1] = total
    return found


def quantize(step: Step) -> Gradients | Skip:
    """1 in range; by the scale: −x/s in range"""
    codes = RANGES.get(step.y.dtype.name if step.y.dtype else "")
    if codes is None:
        return Skip(f"it rounds to {step.y.dtype}")
    limits = _limits(step, codes)
    if isinstance(limits, Skip):
        return limits
    if _is_single(step.input(1)):
        clipped = step.op("Clip", step.x, *limits)
    else:
        clipped = step.op("Min", step.op("Max", step.x, limits[0]), limits[1])
    inside = step.op("Mul", step.dy, step.mask(step.op("Equal", clipped, step.x)))
    found = {0: inside}
    if step.wants(1):
        total = _by_scale(step, inside, step.x)
        if isinstance(total, Skip):
            return total
        found[1] = step.op("Neg", total)
    return found


def _limits(step: Step, codes: tuple[int, int]) -> tuple[ir.Value, ir.Value] | Skip:
    """The values of the lowest and the highest code, shaped to meet the tensor."""
    rank = rank_of(step.x)
    if step.integer("block_size", 0):
        return Skip("it has a scale for each block")
    scale, zero = step.input(1), input_at(step.node, 2)
    axis = step.integer("axis", 1) % max(rank, 1)
    found = []
    for code in codes:
        distance = step.floats(code)
        if zero is not None:
            distance = step.op("Sub", distance, step.op("Cast", zero, to=step.kind.value))
        limit = step.op("Mul", scale, distance)
        found.append(step.with_shape(limit, [] if _is_single(scale) else [-1] + [1] * (rank - 1 - axis)))
    return found[0], found[1]


def _is_single(scale: ir.Value) -> bool:
    return scale.shape is not None and all(dim == 1 for dim in scale.shape)


def _by_scale(step: Step, gradient: ir.Value, tensor: ir.Value) -> ir.Value | Skip:
    """The sum for each scale of the gradient times the tensor, divided by it."""
    scale, rank = step.input(1), rank_of(tensor)
    if step.integer("block_size", 0):
        return Skip("it has a scale for each block")
    if _is_single(scale):  # reads both once and writes nothing, where a product and its sum would
        rows = [step.with_shape(value, [1, -1]) for value in (gradient, tensor)]
        total = step.op("Gemm", *rows, transB=1)
    else:
        axis = step.integer("axis", 1) % max(rank, 1)
        axes = [number for number in range(rank) if number != axis]
        total = step.sum(step.op("Mul", gradient, tensor), axes, keepdims=False)
    return step.op("Div", step.reshaped(total, scale), scale)
