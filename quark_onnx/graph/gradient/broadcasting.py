"""Back through broadcasting: what was read many times gets the sum of all its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from quark_onnx.graph.gradient.step import Step, dims_of


def unbroadcast(step: Step, gradient: ir.Value, to: ir.Value) -> ir.Value:
    """The gradient by an input that was stretched to the shape of output 0, from one of that shape."""
    return summed(step, gradient, to, dims_of(step.y))


def summed(step: Step, gradient: ir.Value, to: ir.Value, wide: Sequence[Any]) -> ir.Value:
    """The gradient by `to`, from one of these dimensions."""
    narrow = dims_of(to)
    ahead = len(wide) - len(narrow)
    axes = list(range(ahead))
    for axis, (own, given) in enumerate(zip(narrow, wide[ahead:], strict=True), ahead):
        if own == 1 and given != 1:
            axes.append(axis)
        elif not isinstance(own, int) and (own != given or own.value is None):  # it may be 1 in a run
            return _at_run_time(step, gradient, to)
    if len(axes) == ahead:
        return step.sum(gradient, axes, keepdims=False)
    total = step.sum(gradient, axes, keepdims=not ahead)
    return step.reshaped(total, to) if ahead else total


def _at_run_time(step: Step, gradient: ir.Value, to: ir.Value) -> ir.Value:
    """The axes to sum along are those where the shape of `to`, with ones in front, is 1."""
    dims, whole = step.op("Shape", to), step.op("Shape", gradient)
    ahead = step.op("Sub", step.op("Shape", whole), step.op("Shape", dims))
    padded = step.op("Pad", dims, step.op("Concat", ahead, step.ints([0]), axis=0), step.ints(1))
    axes = step.op("Squeeze", step.op("NonZero", step.op("Equal", padded, step.ints(1))), step.ints([0]))
    total = step.op("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
    return step.op("Reshape", total, dims)
