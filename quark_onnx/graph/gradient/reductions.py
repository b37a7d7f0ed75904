"""Reductions along axes, which are an attribute or an input, and pools over all places of a channel."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Gradients, Step, constant_ints, dims_of, rank_of
from quark_onnx.graph.view import input_at


def total(step: Step) -> Gradients | Skip:
    """ReduceSum: to all alike."""
    return _spread(step, lambda back, _: back)


def average(step: Step) -> Gradients | Skip:
    """ReduceMean: to all alike, a share."""
    return _spread(step, lambda back, axes: _share(step, back, axes))


def squares(step: Step) -> Gradients | Skip:
    """ReduceSumSquare: 2x"""
    return _back(step, lambda back, y, _: step.op("Mul", back, step.scaled(step.x, 2)))


def norm(step: Step) -> Gradients | Skip:
    """ReduceL2: x/y"""
    return _back(step, lambda back, y, _: step.op("Mul", step.op("Div", back, y), step.x))


def absolutes(step: Step) -> Gradients | Skip:
    """ReduceL1: the sign"""
    return _back(step, lambda back, y, _: step.op("Mul", back, step.op("Sign", step.x)))


def log_sum_exp(step: Step) -> Gradients | Skip:
    """ReduceLogSumExp: exp(x − y)"""
    return _back(step, lambda back, y, _: step.op("Mul", back, step.op("Exp", step.op("Sub", step.x, y))))


def extreme(step: Step) -> Gradients | Skip:
    """ReduceMax and ReduceMin: to those that are it, a share."""
    return _back(step, lambda back, y, axes: _to_equals(step, back, y, axes))


def global_average(step: Step) -> Gradients:
    """GlobalAveragePool: the mean of a channel."""
    rank = rank_of(step.x)
    return {0: step.op("Expand", _share(step, step.dy, list(range(2, rank))), step.dims(step.x))}


def global_maximum(step: Step) -> Gradients:
    """GlobalMaxPool: the largest of a channel."""
    rank = rank_of(step.x)
    return {0: _to_equals(step, step.dy, step.y, list(range(2, rank)))}


def _spread(step: Step, share: Callable[[ir.Value, list[int]], ir.Value]) -> Gradients | Skip:
    return _back(step, lambda back, _, axes: step.op("Expand", share(back, axes), step.dims(step.x)))


def _back(step: Step, slope: Callable[[ir.Value, ir.Value, list[int]], ir.Value]) -> Gradients | Skip:
    """`slope` takes dy and y, with the axes that are gone put back as ones, and the axes."""
    axes = _axes(step)
    if isinstance(axes, Skip):
        return axes
    if not axes:  # the operator, of an empty list: each number by itself
        return Skip("it has no axes")
    back, y = step.dy, step.y
    if not step.integer("keepdims", 1):
        back, y = (step.op("Unsqueeze", value, step.ints(axes)) for value in (back, y))
    return {0: slope(back, y, axes)}


def _axes(step: Step) -> list[int] | Skip:
    rank = rank_of(step.x)
    given = input_at(step.node, 1)
    axes = step.integers("axes") if given is None else constant_ints(given)
    if given is not None and axes is None:
        return Skip(f"its axes {given.name!r} are no constant")
    if axes:
        return axes
    return [] if step.integer("noop_with_empty_axes", 0) else list(range(rank))


def _share(step: Step, back: ir.Value, axes: list[int]) -> ir.Value:
    """Divided by how many there are."""
    sizes = [dims_of(step.x)[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes):
        return step.scaled(back, 1 / max(prod(sizes), 1))
    along = step.op("Gather", step.op("Shape", step.x), step.ints(axes))
    count = step.op("ReduceProd", along, keepdims=0)
    return step.op("Div", back, step.op("Cast", count, to=step.kind.value))


def _to_equals(step: Step, back: ir.Value, y: ir.Value, axes: list[int]) -> ir.Value:
    mask = step.mask(step.op("Equal", step.x, y))
    return step.op("Mul", mask, step.op("Div", back, step.sum(mask, axes)))
