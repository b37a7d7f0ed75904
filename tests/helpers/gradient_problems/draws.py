"""What random problems draw: choices, dimensions, and which of them the model does not know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from finite_differences import Problem

Draw = np.random.Generator
Problems = dict[str, Callable[[Draw], Problem]]


def pick(draw: Draw, *choices):
    return choices[draw.integers(len(choices))]


def dims(draw: Draw, low: int = 1, high: int = 4) -> list[int]:
    return [int(size) for size in draw.integers(1, 5, draw.integers(low, high + 1))]


def stretched(draw: Draw, shape: list[int]) -> list[int]:
    """A shape that is stretched to this one."""
    kept = [1 if draw.random() < 0.3 else size for size in shape]
    return kept[draw.integers(len(shape) + 1) :]


def batch(draw: Draw, *names: str) -> tuple[str, ...]:
    return (names or ("x",)) if draw.random() < 0.4 else ()


def elementwise(draw: Draw, operator: str, low: float = -3, high: float = 3, opset: int = 18) -> Problem:
    return Problem(f"y = {operator} (x)", {"x": draw.uniform(low, high, dims(draw))}, batched=batch(draw), opset=opset)


def numbers(draw: Draw, operator: str, shape: list[int]) -> np.ndarray:
    """For a maximum those that keep their order when they change by less than ½."""
    if "Max" not in operator:
        return draw.normal(size=shape)
    return draw.permutation(float(np.prod(shape)) - np.arange(np.prod(shape))).reshape(shape)


def into(problems: Problems) -> Callable[[Callable[[Draw], Problem]], Callable[[Draw], Problem]]:
    """Keeps what a function makes under its name."""

    def keep(make: Callable[[Draw], Problem]) -> Callable[[Draw], Problem]:
        problems[make.__name__] = make
        return make

    return keep


def by_channel(draw: Draw, channels: int, *names: str) -> dict[str, np.ndarray]:
    return {name: draw.uniform(0.5, 2, channels) for name in names}
