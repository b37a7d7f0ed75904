"""Normalizations, and what reduces along axes."""

from __future__ import annotations

import numpy as np
from finite_differences import Problem

from gradient_problems.draws import Draw, Problems, batch, by_channel, dims, elementwise, into, numbers, pick

PROBLEMS: Problems = {}


for name in ("Softmax", "LogSoftmax"):
    PROBLEMS[name] = lambda draw, name=name: elementwise(draw, f"{name} <axis = {pick(draw, 0, -1)}>")


@into(PROBLEMS)
def LayerNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 1, 3), 6]
    axis = int(draw.integers(1, len(shape)))
    parts = {"w": draw.normal(size=shape[axis:]), "b": draw.normal(size=shape[axis:])}
    if draw.random() < 0.3:
        parts.pop("b")
    text = f"y = LayerNormalization <axis = {axis}> ({', '.join(['x', *parts])})"
    return Problem(text, {"x": draw.normal(size=shape)}, parts, batched=batch(draw))


@into(PROBLEMS)
def RMSNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 1, 3), 6]
    x, w = {"x": draw.normal(size=shape)}, {"w": draw.normal(size=shape[-1:])}
    return Problem("y = RMSNormalization <axis = -1> (x, w)", x, w, batched=batch(draw), opset=23)


@into(PROBLEMS)
def InstanceNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 2, 3), 5]
    constants = by_channel(draw, shape[1] if len(shape) > 2 else 5, "w", "b")
    shape = shape if len(shape) > 2 else [2, 5, 4]
    return Problem(
        "y = InstanceNormalization (x, w, b)", {"x": draw.normal(size=shape)}, constants, batched=batch(draw)
    )


@into(PROBLEMS)
def GroupNormalization(draw: Draw) -> Problem:
    x, groups = draw.normal(size=(draw.integers(1, 4), 6, *dims(draw, 1, 2), 3)), pick(draw, 1, 2, 3, 6)
    text = f"y = GroupNormalization <num_groups = {groups}, stash_type = TO> (x, w, b)"
    return Problem(text, {"x": x}, by_channel(draw, 6, "w", "b"), batched=batch(draw), opset=21)


@into(PROBLEMS)
def BatchNormalization(draw: Draw) -> Problem:
    shape = [*dims(draw, 2, 4)]
    constants = by_channel(draw, shape[1], "w", "b", "m", "v")
    text = "y = BatchNormalization (x, w, b, m, v)"
    return Problem(text, {"x": draw.normal(size=shape)}, constants, batched=batch(draw))


def reduced(draw: Draw, operator: str) -> Problem:
    shape, keep = dims(draw, 1, 4), int(draw.integers(2))
    axes = np.sort(draw.choice(len(shape), draw.integers(1, len(shape) + 1), replace=False))
    axes = np.where(draw.random(axes.shape) < 0.5, axes, axes - len(shape))
    x, known = {"x": draw.normal(size=shape)}, batch(draw)
    if draw.random() < 0.2:
        return Problem(f"y = {operator} <keepdims = {keep}> (x)", x, batched=known)
    if operator != "ReduceSum" and draw.random() < 0.5:
        return Problem(f"y = {operator} <keepdims = {keep}, axes = {axes.tolist()}> (x)", x, batched=known, opset=17)
    return Problem(f"y = {operator} <keepdims = {keep}> (x, a)", x, {"a": axes}, batched=known)


for name in ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp"):
    PROBLEMS[f"Reduce{name}"] = lambda draw, name=name: reduced(draw, f"Reduce{name}")


@into(PROBLEMS)
def CumSum(draw: Draw) -> Problem:
    shape = dims(draw, 1, 4)
    axis, exclusive, reverse = int(draw.integers(-len(shape), len(shape))), draw.integers(2), draw.integers(2)
    text = f"y = CumSum <exclusive = {exclusive}, reverse = {reverse}> (x, a)"
    return Problem(text, {"x": draw.normal(size=shape)}, {"a": np.array(axis)}, batched=batch(draw))


@into(PROBLEMS)
def TopK(draw: Draw) -> Problem:
    shape = dims(draw, 1, 4)
    axis, largest = int(draw.integers(-len(shape), len(shape))), draw.integers(2)
    text = f"y, i = TopK <axis = {axis}, largest = {largest}> (x, k)"
    x, count = {"x": numbers(draw, "Max", shape)}, np.array([draw.integers(1, shape[axis] + 1)])
    return Problem(text, x, {"k": count}, batched=batch(draw) if axis % len(shape) else ())
