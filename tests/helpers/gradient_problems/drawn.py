"""What random problems are drawn from: shapes, those that are stretched to them, and the simplest models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from finite_differences import Problem

Draw = np.random.Generator
Case = Callable[[Draw], Problem]


class Cases(dict[str, Case]):
    """By operator."""

    def add(self, make: Case) -> Case:
        """One more, by the name of the function."""
        self[make.__name__] = make
        return make


def pick(draw: Draw, *choices):
    return choices[draw.integers(len(choices))]


def dims(draw: Draw, low: int = 1, high: int = 4) -> list[int]:
    return [int(size) for size in draw.integers(1, 5, draw.integers(low, high + 1))]


def stretched(draw: Draw, shape: list[int]) -> list[int]:
    """A shape that is stretched to this one."""
    kept = [1 if draw.random() < 0.3 else size for size in shape]
    return kept[draw.integers(len(shape) + 1) :]


def elementwise(draw: Draw, operator: str, low: float = -3, high: float = 3, opset: int = 18) -> Problem:
    return Problem(f"y = {operator} (x)", {"x": draw.uniform(low, high, dims(draw))}, batched=batch(draw), opset=opset)


def numbers(draw: Draw, operator: str, shape: list[int]) -> np.ndarray:
    """For a maximum those that keep their order when they change by less than ½."""
    if "Max" not in operator:
        return draw.normal(size=shape)
    return draw.permutation(float(np.prod(shape)) - np.arange(np.prod(shape))).reshape(shape)


def batch(draw: Draw, *names: str) -> tuple[str, ...]:
    return (names or ("x",)) if draw.random() < 0.4 else ()


def pair(draw: Draw, operator: str, low: float = -3, high: float = 3) -> Problem:
    """Two tensors, either of which may be stretched."""
    shape = dims(draw)
    x, other = draw.uniform(low, high, shape), draw.uniform(low, high, stretched(draw, shape))
    if draw.random() < 0.3:
        return Problem(f"y = {operator} (w, x)", {"x": x}, {"w": other}, batched=batch(draw))
    return Problem(f"y = {operator} (x, w)", {"x": x}, {"w": other}, batched=batch(draw))
