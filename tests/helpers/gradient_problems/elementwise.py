"""What is computed number by number."""

from __future__ import annotations

import numpy as np
from finite_differences import Problem

from gradient_problems.draws import Draw, Problems, batch, dims, elementwise, into, pick, stretched

PROBLEMS: Problems = {}


def pair(draw: Draw, operator: str, low: float = -3, high: float = 3) -> Problem:
    """Two tensors, either of which may be stretched."""
    shape = dims(draw)
    x, other = draw.uniform(low, high, shape), draw.uniform(low, high, stretched(draw, shape))
    if draw.random() < 0.3:
        return Problem(f"y = {operator} (w, x)", {"x": x}, {"w": other}, batched=batch(draw))
    return Problem(f"y = {operator} (x, w)", {"x": x}, {"w": other}, batched=batch(draw))


for name in ("Add", "Sub", "Mul", "Max", "Min"):
    PROBLEMS[name] = lambda draw, name=name: pair(draw, name)
PROBLEMS["Div"] = lambda draw: pair(draw, "Div", 0.5, 3)
for name in ("Neg", "Exp", "Abs", "Sin", "Cos", "Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Identity"):
    PROBLEMS[name] = lambda draw, name=name: elementwise(draw, name)
for name in ("Sqrt", "Log", "Reciprocal"):
    PROBLEMS[name] = lambda draw, name=name: elementwise(draw, name, 0.3, 3)
for name, other in (("LeakyRelu", "alpha"), ("Elu", "alpha")):
    PROBLEMS[name] = lambda draw, name=name, other=other: elementwise(
        draw, f"{name} <{other} = {draw.uniform(0.1, 2):.3f}>"
    )
PROBLEMS["Gelu"] = lambda draw: elementwise(draw, f'Gelu <approximate = "{pick(draw, "none", "tanh")}">', opset=20)
PROBLEMS["HardSigmoid"] = lambda draw: elementwise(
    draw, f"HardSigmoid <alpha = {draw.uniform(0.1, 0.4):.3f}, beta = 0.4>"
)


@into(PROBLEMS)
def Sum(draw: Draw) -> Problem:
    shape = dims(draw)
    others = {f"w{number}": draw.normal(size=stretched(draw, shape)) for number in range(draw.integers(3))}
    return Problem(
        f"y = {pick(draw, 'Sum', 'Mean')} ({', '.join(['x', *others])})", {"x": draw.normal(size=shape)}, others
    )


@into(PROBLEMS)
def Mean(draw: Draw) -> Problem:
    return Problem(
        "y = Mean (x, w, x)", {"x": draw.normal(size=(2, 3))}, {"w": draw.normal(size=stretched(draw, [2, 3]))}
    )


@into(PROBLEMS)
def Pow(draw: Draw) -> Problem:
    shape = dims(draw)
    exponent = pick(draw, np.array(2.0), np.array(3.0), np.array(-0.5), draw.uniform(-2, 2, stretched(draw, shape)))
    fixed = ("w",) if exponent.ndim == 0 and draw.random() < 0.7 else ()
    return Problem("y = Pow (x, w)", {"x": draw.uniform(0.5, 2, shape)}, {"w": exponent}, fixed, batch(draw))


@into(PROBLEMS)
def Clip(draw: Draw) -> Problem:
    limits = {"lo": np.array(draw.uniform(-1, 0)), "hi": np.array(draw.uniform(0.1, 1))}
    fixed, ends = pick(
        draw, ((), "lo, hi"), (("lo", "hi"), "lo, hi"), (("lo",), "lo, hi"), (("hi",), ", hi"), ((), "lo")
    )
    limits = {name: limits[name] for name in limits if name in ends}
    x = {"x": draw.normal(size=[*dims(draw), 5])}
    return Problem(f"y = Clip (x, {ends})", x, limits, fixed, batched=batch(draw))


@into(PROBLEMS)
def PRelu(draw: Draw) -> Problem:
    shape = dims(draw)
    return Problem("y = PRelu (x, w)", {"x": draw.normal(size=shape)}, {"w": draw.normal(size=stretched(draw, shape))})


@into(PROBLEMS)
def Where(draw: Draw) -> Problem:
    shape = dims(draw)
    truth = draw.random(stretched(draw, shape)) < 0.5
    parts = {"a": draw.normal(size=shape), "b": draw.normal(size=stretched(draw, shape))}
    return Problem("y = Where (c, a, b)", parts, {"c": truth}, batched=batch(draw, "a"))
