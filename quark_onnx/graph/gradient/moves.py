"""Operators that only move numbers: what comes back goes where it came from.

Any of them, given the position of each number instead of the number, tells where its results are from; the gradient is
added up there. Where the way back is an operator of its own, that is taken.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.broadcasting import unbroadcast
from quark_onnx.graph.gradient.step import Gradients, Step, constant_ints, dims_of, rank_of
from quark_onnx.graph.view import FLOATS, input_at


def same(step: Step) -> Gradients:
    """Identity, and a Dropout that does not drop."""
    return {0: step.dy}


def cast(step: Step) -> Gradients | Skip:
    """Between float types."""
    kind = step.x.dtype
    if kind not in FLOATS or kind is None:
        return Skip("it makes floats of integers")
    return {0: step.op("Cast", step.dy, to=kind.value)}


def reshape(step: Step) -> Gradients:
    """Reshape, Flatten, Squeeze, Unsqueeze."""
    return {0: step.reshaped(step.dy, step.x)}


def transpose(step: Step) -> Gradients:
    """The inverse permutation; without one the axes are turned round."""
    perm = step.integers("perm")
    rank = rank_of(step.x)
    return {0: step.transposed(step.dy, np.argsort(perm).tolist() if perm else range(rank)[::-1])}


def expand(step: Step) -> Gradients:
    """The sum over all copies."""
    return {0: unbroadcast(step, step.dy, step.x)}


def concat(step: Step) -> Gradients:
    """Each gets its part."""
    axis = step.integer("axis", 0)
    parts = [step.input(index) for index in range(len(step.node.inputs))]
    sizes = [dims_of(part)[axis] for part in parts]
    if all(isinstance(size, int) for size in sizes):
        lengths = step.ints(sizes)
    else:
        each = [step.op("Gather", step.op("Shape", part), step.ints([axis])) for part in parts]
        lengths = step.op("Concat", *each, axis=0)
    found = step.ops("Split", len(parts), step.dy, lengths, axis=axis)
    return {index: found[index] for index in step.wanted}


def split(step: Step) -> Gradients:
    """What comes back of all parts, and zeros where nothing does."""
    parts = [step.gradient(index) for index in range(len(step.node.outputs))]
    whole = [
        step.zeros(output) if part is None else part for part, output in zip(parts, step.node.outputs, strict=True)
    ]
    return {0: step.op("Concat", *whole, axis=step.integer("axis", 0))}


def pad(step: Step) -> Gradients:
    """What was added is cut off, and what was cut off gets zeros; in modes that copy, see `moved`."""
    if step.text("mode", "constant") != "constant":
        return moved(step)
    back = step.op("Neg", step.input(1))
    axes = input_at(step.node, 3)
    return {0: step.op("Pad", step.dy, back, None, axes) if axes is not None else step.op("Pad", step.dy, back)}


def slice_(step: Step) -> Gradients:
    """Zeros around it, and in between for what was stepped over; where sizes are not known, see `moved`."""
    sizes, now, back = dims_of(step.x), dims_of(step.y), step.dy
    starts, ends, axes, steps = (constant_ints(input_at(step.node, index)) for index in range(1, 5))
    if starts is None or ends is None or (axes is None and input_at(step.node, 3) is not None):
        return moved(step)
    before, after = [0] * len(sizes), [0] * len(sizes)
    for axis, start, end, stride in zip(
        axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True
    ):
        axis, size = axis % len(sizes), sizes[axis]
        behind = now[axis + 1 :]
        if not isinstance(size, int) or stride < 1 or (stride > 1 and not all(isinstance(n, int) for n in behind)):
            return moved(step)
        first, last = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
        count = -(-(last - first) // stride)
        if count < 1:
            return moved(step)
        if stride > 1:
            apart = step.op("Unsqueeze", back, step.ints([axis + 1]))
            gap = [0] * len(sizes) + [0] + [0] * (axis + 1) + [stride - 1] + [0] * len(behind)
            back = step.with_shape(step.op("Pad", apart, step.ints(gap)), [0] * axis + [count * stride, *behind])
            now[axis] = count * stride
        before[axis], after[axis] = first, size - first - count * stride
    return {0: step.op("Pad", back, step.ints([*before, *after]))}


def gather(step: Step) -> Gradients:
    """Rows of a table, each read any number of times."""
    rank, indices = rank_of(step.x), step.input(1)
    axis = step.integer("axis", 0) % rank
    dims = step.op("Shape", step.x)
    ahead, behind = step.op("Slice", dims, step.ints([0]), step.ints([axis])), step.op("Shape", step.x, start=axis + 1)
    whole = step.op("Concat", ahead, step.ints([-1]), behind, axis=0)
    back = step.op("Reshape", step.dy, whole)
    column = step.with_shape(indices, [1] * axis + [-1] + [1] * (rank - 1 - axis))
    places = step.op("Expand", column, step.op("Shape", back))
    return {0: step.op("ScatterElements", step.zeros(step.x), places, back, axis=axis, reduction="add")}


def depth_to_space(step: Step) -> Gradients:
    """SpaceToDepth, with the channels in the order that the mode gave them."""
    size = step.integer("blocksize", 1)
    back = step.op("SpaceToDepth", step.dy, blocksize=size)
    if step.text("mode", "DCR") == "CRD":  # channels before blocks
        spatial = step.op("Shape", back, start=2)
        blocks = step.op("Reshape", back, step.op("Concat", step.ints([0, size * size, -1]), spatial, axis=0))
        back = step.reshaped(step.transposed(blocks, [0, 2, 1, 3, 4]), step.x)
    return {0: back}


def space_to_depth(step: Step) -> Gradients:
    """DepthToSpace"""
    return {0: step.op("DepthToSpace", step.dy, blocksize=step.integer("blocksize", 1))}


def moved(step: Step) -> Gradients:
    """The operator itself moves the positions, and a sum goes back to each."""
    dims = step.dims(step.x)
    positions = step.op("Range", step.ints(0), step.op("Size", step.x), step.ints(1))
    sources = step.again(step.op("Reshape", positions, dims))
    return {0: scattered(step, sources, step.dy)}


def scattered(step: Step, sources: ir.Value, gradient: ir.Value) -> ir.Value:
    """The gradient added up at positions in the flat input 0, with its shape."""
    flat = [step.with_shape(value, [-1]) for value in (sources, gradient)]
    zeros = step.with_shape(step.zeros(step.x), [-1])
    return step.reshaped(step.op("ScatterElements", zeros, *flat, axis=0, reduction="add"), step.x)
