"""What is computed number by number, and matrix products."""

from __future__ import annotations

import numpy as np
from finite_differences import Problem

from gradient_problems.drawn import Cases, Draw, batch, dims, elementwise, pair, pick, stretched

CASES = Cases()


for name in ("Add", "Sub", "Mul", "Max", "Min"):
    CASES[name] = lambda draw, name=name: pair(draw, name)
CASES["Div"] = lambda draw: pair(draw, "Div", 0.5, 3)
for name in ("Neg", "Exp", "Abs", "Sin", "Cos", "Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Identity"):
    CASES[name] = lambda draw, name=name: elementwise(draw, name)
for name in ("Sqrt", "Log", "Reciprocal"):
    CASES[name] = lambda draw, name=name: elementwise(draw, name, 0.3, 3)
for name, other in (("LeakyRelu", "alpha"), ("Elu", "alpha")):
    CASES[name] = lambda draw, name=name, other=other: elementwise(
        draw, f"{name} <{other} = {draw.uniform(0.1, 2):.3f}>"
    )
CASES["Gelu"] = lambda draw: elementwise(draw, f'Gelu <approximate = "{pick(draw, "none", "tanh")}">', opset=20)
CASES["HardSigmoid"] = lambda draw: elementwise(draw, f"HardSigmoid <alpha = {draw.uniform(0.1, 0.4):.3f}, beta = 0.4>")


@CASES.add
def Sum(draw: Draw) -> Problem:
    shape = dims(draw)
    others = {f"w{number}": draw.normal(size=stretched(draw, shape)) for number in range(draw.integers(3))}
    return Problem(
        f"y = {pick(draw, 'Sum', 'Mean')} ({', '.join(['x', *others])})", {"x": draw.normal(size=shape)}, others
    )


@CASES.add
def Mean(draw: Draw) -> Problem:
    return Problem(
        "y = Mean (x, w, x)", {"x": draw.normal(size=(2, 3))}, {"w": draw.normal(size=stretched(draw, [2, 3]))}
    )


@CASES.add
def Pow(draw: Draw) -> Problem:
    shape = dims(draw)
    exponent = pick(draw, np.array(2.0), np.array(3.0), np.array(-0.5), draw.uniform(-2, 2, stretched(draw, shape)))
    fixed = ("w",) if exponent.ndim == 0 and draw.random() < 0.7 else ()
    return Problem("y = Pow (x, w)", {"x": draw.uniform(0.5, 2, shape)}, {"w": exponent}, fixed, batch(draw))


@CASES.add
def Clip(draw: Draw) -> Problem:
    limits = {"lo": np.array(draw.uniform(-1, 0)), "hi": np.array(draw.uniform(0.1, 1))}
    fixed, ends = pick(
        draw, ((), "lo, hi"), (("lo", "hi"), "lo, hi"), (("lo",), "lo, hi"), (("hi",), ", hi"), ((), "lo")
    )
    limits = {name: limits[name] for name in limits if name in ends}
    x = {"x": draw.normal(size=[*dims(draw), 5])}
    return Problem(f"y = Clip (x, {ends})", x, limits, fixed, batched=batch(draw))


@CASES.add
def PRelu(draw: Draw) -> Problem:
    shape = dims(draw)
    return Problem("y = PRelu (x, w)", {"x": draw.normal(size=shape)}, {"w": draw.normal(size=stretched(draw, shape))})


@CASES.add
def Where(draw: Draw) -> Problem:
    shape = dims(draw)
    truth = draw.random(stretched(draw, shape)) < 0.5
    parts = {"a": draw.normal(size=shape), "b": draw.normal(size=stretched(draw, shape))}
    return Problem("y = Where (c, a, b)", parts, {"c": truth}, batched=batch(draw, "a"))


@CASES.add
def MatMul(draw: Draw) -> Problem:
    rows, inner, columns = (int(n) for n in draw.integers(1, 5, 3))
    batches = dims(draw, 0, 2)
    left, right = [*stretched(draw, batches), rows, inner], [*batches, inner, columns]
    if draw.random() < 0.3:
        left, right = [*batches, rows, inner], [*stretched(draw, batches), inner, columns]
    if draw.random() < 0.15:
        left = [inner]
    if draw.random() < 0.15:
        right = [inner]
    known = batch(draw) if len(left) > 2 and left[0] > 1 else ()
    return Problem("y = MatMul (x, w)", {"x": draw.normal(size=left)}, {"w": draw.normal(size=right)}, batched=known)


@CASES.add
def Gemm(draw: Draw) -> Problem:
    rows, inner, columns = (int(n) for n in draw.integers(1, 5, 3))
    turned = [int(draw.integers(2)) for _ in range(2)]
    a, b = (inner, rows) if turned[0] else (rows, inner), (columns, inner) if turned[1] else (inner, columns)
    c = draw.normal(size=stretched(draw, [rows, columns]))
    attributes = f"transA = {turned[0]}, transB = {turned[1]}, alpha = 0.5, beta = 1.5"
    constants = {"b": draw.normal(size=b), "c": c}
    return Problem(f"y = Gemm <{attributes}> (x, b, c)", {"x": draw.normal(size=a)}, constants, batched=batch(draw))
