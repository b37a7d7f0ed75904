"""Einsum of two tensors, sums of all that stands before a place, and the largest of a row."""

from __future__ import annotations

from quark_onnx.core.plan import Skip
from quark_onnx.graph.gradient.step import Gradients, Step
from quark_onnx.graph.view import shape


def einsum(step: Step) -> Gradients | Skip:
    """By one factor: the Einsum of what comes back with the other one, to the indices of the first."""
    equation = step.text("equation", "").replace(" ", "")
    factors, arrow, result = equation.partition("->")
    names = factors.split(",")
    if not arrow or "." in equation or len(names) != 2:
        return Skip(f"its equation {equation!r} is not one of two tensors with all indices named, ab,bc->ac")
    if any(len(set(name)) < len(name) for name in (*names, result)):
        return Skip(f"an index stands twice in one tensor of its equation {equation!r}")
    sizes: dict[str, set[int]] = {}
    for position, name in enumerate(names):
        for letter, size in zip(name, shape(step.input(position)) or (), strict=False):
            sizes.setdefault(letter, set()).update(() if size is None else (size,))
    if any(len(known) > 1 for known in sizes.values()):
        return Skip(f"a dimension of 1 is stretched in its equation {equation!r}")
    found = {}
    for index in step.wanted:
        mine, other = names[index], names[1 - index]
        if not set(mine) <= set(result + other):
            return Skip(f"an index of its input {index} is summed alone in its equation {equation!r}")
        found[index] = step.op("Einsum", step.dy, step.input(1 - index), equation=f"{result},{other}->{mine}")
    return found


def cumulative(step: Step) -> Gradients:
    """The sum from the other end."""
    exclusive, turned = step.integer("exclusive", 0), 1 - step.integer("reverse", 0)
    return {0: step.op("CumSum", step.dy, step.input(1), exclusive=exclusive, reverse=turned)}


def topmost(step: Step) -> Gradients:
    """TopK: to where each stood."""
    places = step.output(1)
    return {
        0: step.op(
            "ScatterElements", step.zeros(step.x), places, step.dy, axis=step.integer("axis", -1), reduction="add"
        )
    }
