"""Recipes of operators that work on each number by itself: of one input, of two, and comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
from model_builder import Builder
from recipe import Recipe

_UNARY: dict[str, tuple[int, dict[str, Any]]] = {
    "Abs": (6, {}),
    "Atan": (7, {}),
    "Asinh": (9, {}),
    "Ceil": (6, {}),
    "Celu": (12, {"alpha": 1.5}),
    "Cos": (7, {}),
    "Elu": (6, {"alpha": 0.7}),
    "Erf": (9, {}),
    "Exp": (6, {}),
    "Floor": (6, {}),
    "Gelu": (20, {}),
    "HardSigmoid": (6, {"alpha": 0.25, "beta": 0.4}),
    "HardSwish": (14, {}),
    "Identity": (1, {}),
    "LeakyRelu": (6, {"alpha": 0.1}),
    "Log": (6, {}),
    "Mish": (18, {}),
    "Neg": (6, {}),
    "Reciprocal": (6, {}),
    "Relu": (6, {}),
    "Round": (11, {}),
    "Selu": (6, {}),
    "Sigmoid": (6, {}),
    "Sign": (9, {}),
    "Sin": (7, {}),
    "Softplus": (1, {}),
    "Softsign": (1, {}),
    "Sqrt": (6, {}),
    "Swish": (24, {}),
    "Tanh": (6, {}),
    "ThresholdedRelu": (10, {"alpha": 0.3}),
}
_POSITIVE = ("Log", "Sqrt", "Reciprocal")
_COMMON = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Gelu")
_LOGICAL = ("And", "Or", "Xor")


def _unary(op_type: str, attributes: dict[str, Any]) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick()
        if op_type in _POSITIVE:
            name = b.add("Abs", [name])
            name = b.add("Add", [name, b.constant(0.5, b.real)])
        b.add(op_type, [name], **attributes)

    since, _ = _UNARY[op_type]
    return Recipe(make, since, weight=4 if op_type in _COMMON else 1)


def other_side(b: Builder, name: str) -> str:
    """Something that goes with a value: another value, a constant of its shape, of its channels, or a number."""
    shape, kind = b.dims(name), b.rng.random()
    if kind < 0.5:
        return b.pick(lambda array: array.shape == shape)
    if kind < 0.6:
        return b.weight(*shape)
    if kind < 0.8 and len(shape) > 1:
        return b.weight(shape[1], *[1] * (len(shape) - 2))
    return b.constant(b.choose([0.5, 1.0, 2.0, 3.0, -1.0, 0.1]), b.real)


def _binary(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick()
        sides = [name, other_side(b, name)]
        if op_type == "Div":
            away = b.add("Abs", [sides[1]]) if sides[1] in b.values else sides[1]
            sides[1] = b.add("Add", [away, b.constant(0.5, b.real)]) if away in b.values else away
        elif b.chance(0.3):
            sides.reverse()
        b.add(op_type, sides)

    return Recipe(make, 7, weight=5 if op_type in ("Add", "Mul") else 2)


def _many(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick()
        b.add(op_type, [name, *(other_side(b, name) for _ in range(int(b.rng.integers(0, 3))))])

    return Recipe(make, 8)


def _power(b: Builder) -> None:
    b.add("Pow", [b.pick(), b.constant(b.choose([2.0, 3.0]), b.real)])


def _slopes(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim > 1)
    channels = b.dims(name)[1]
    b.add("PRelu", [name, b.weight(channels, *[1] * (len(b.dims(name)) - 2))])


def _clip(b: Builder) -> None:
    low, high = b.choose([(0, 6), (0, 1), (-1, 1), (-0.5, 2), (None, 3), (0, None)])
    b.add("Clip", [b.pick(), *("" if bound is None else b.constant(bound, b.real) for bound in (low, high))])


def _modulo(b: Builder) -> None:
    b.add("Mod", [b.pick(), b.constant(1.5, b.real)], fmod=1)


def _comparison(op_type: str, since: int) -> Recipe:
    def make(b: Builder) -> None:
        b.add(op_type, [b.pick(), b.constant(0.1, b.real)])

    return Recipe(make, since, weight=0.5)


def boolean(b: Builder) -> str:
    """A value of truths; made of numbers where there is none."""
    found = [name for name, array in b.values.items() if array.dtype == bool and array.size]
    return str(b.choose(found)) if found and b.chance(0.7) else str(b.add("Less", [b.pick(), b.constant(0.2, b.real)]))


def _logical(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        one = boolean(b)
        alike = [n for n, array in b.values.items() if array.dtype == bool and array.shape == b.dims(one)]
        b.add(op_type, [one, str(b.choose(alike))])

    return Recipe(make, 7, weight=0.3)


def _not(b: Builder) -> None:
    b.add("Not", [boolean(b)])


def _where(b: Builder) -> None:
    truth = boolean(b)
    name = b.pick(lambda array: array.shape == b.dims(truth))
    sides = [name, b.choose([b.constant(0.0, b.real), other_side(b, name), b.constant(-1e3, b.real)])]
    b.add("Where", [truth, *(reversed(sides) if b.chance(0.3) else sides)])


def _is(op_type: str, since: int) -> Recipe:
    def make(b: Builder) -> None:
        b.add(op_type, [b.pick(lambda array: array.dtype == np.float32)])

    return Recipe(make, since, weight=0.2)


def _cast(b: Builder) -> None:
    """To another type and back."""
    there = b.choose([np.float16, np.float64, np.int32, np.float32])
    kinds = {np.dtype(np.float16): 10, np.dtype(np.float64): 11, np.dtype(np.int32): 6, np.dtype(np.float32): 1}
    name = b.add("Cast", [b.pick()], to=kinds[np.dtype(there)])
    b.add("Cast", [name], to=kinds[b.real])


def _cast_like(b: Builder) -> None:
    integers = [n for n, array in b.values.items() if array.dtype.kind in "ib"]
    name = b.choose(integers) if integers else b.add("Greater", [b.pick(), b.constant(0.0, b.real)])
    b.add("CastLike", [name, b.pick()])


def _dropout(b: Builder) -> None:
    name = b.pick()
    if b.opset < 12:
        b.add("Dropout", [name], ratio=0.3)
    else:
        b.add("Dropout", [name, b.constant(0.3, np.float32)])


OPERATORS = (
    {name: _unary(name, attributes) for name, (_, attributes) in _UNARY.items()}
    | {name: _binary(name) for name in ("Add", "Sub", "Mul", "Div")}
    | {name: _many(name) for name in ("Min", "Max", "Mean", "Sum")}
    | {name: _comparison(name, 9) for name in ("Greater", "Less")}
    | {name: _comparison(name, 12) for name in ("GreaterOrEqual", "LessOrEqual")}
    | {"Equal": _comparison("Equal", 11)}
    | {name: _logical(name) for name in _LOGICAL}
    | {
        "Not": Recipe(_not, weight=0.3),
        "Where": Recipe(_where, 9),
        "IsNaN": _is("IsNaN", 9),
        "IsInf": _is("IsInf", 10),
        "Pow": Recipe(_power, 7),
        "PRelu": Recipe(_slopes, 9),
        "Clip": Recipe(_clip, 11, weight=3),
        "Mod": Recipe(_modulo, 10, weight=0.5),
        "Cast": Recipe(_cast, 9),
        "CastLike": Recipe(_cast_like, 15, weight=0.5),
        "Dropout": Recipe(_dropout),
    }
)
