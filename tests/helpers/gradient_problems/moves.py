"""What moves numbers, or leaves some out."""

from __future__ import annotations

import numpy as np
from finite_differences import Problem

from gradient_problems.draws import Draw, Problems, batch, dims, into, pick, stretched

PROBLEMS: Problems = {}


@into(PROBLEMS)
def Concat(draw: Draw) -> Problem:
    shape = dims(draw)
    axis = int(draw.integers(-len(shape), len(shape)))
    parts = {}
    for name in ("x", "u", "v")[: draw.integers(1, 4)]:
        shape[axis] = int(draw.integers(1, 4))
        parts[name] = draw.normal(size=shape)
    return Problem(f"y = Concat <axis = {axis}> ({', '.join(parts)})", parts, batched=batch(draw, *parts))


@into(PROBLEMS)
def Split(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 4), 5))}
    nodes = pick(draw, "y = Mul (a, a)", "t = Exp (c) y = Add (a, t)")
    return Problem(f"a, b, c = Split <axis = 1> (x, s) {nodes}", x, {"s": np.array([2, 1, 2])}, batched=batch(draw))


@into(PROBLEMS)
def Slice(draw: Draw) -> Problem:
    shape = [int(n) for n in draw.integers(3, 6, draw.integers(1, 4))]
    axis = int(draw.integers(len(shape)))
    starts, ends, step = pick(draw, (1, 9, 1), (-2, 2**62, 1), (0, -1, 1), (0, 9, 2), (-1, -9, -1), (-1, 0, -2))
    numbers = {key: np.array([n]) for key, n in (("a", starts), ("b", ends), ("c", axis), ("d", step))}
    return Problem("y = Slice (x, a, b, c, d)", {"x": draw.normal(size=shape)}, numbers, batched=batch(draw))


@into(PROBLEMS)
def Pad(draw: Draw) -> Problem:
    shape = [int(n) for n in draw.integers(3, 6, draw.integers(1, 4))]
    mode, low = pick(draw, ("constant", -1), ("constant", 0), ("reflect", 0), ("edge", 0))
    pads = draw.integers(low, 3, 2 * len(shape))
    return Problem(
        f'y = Pad <mode = "{mode}"> (x, p)', {"x": draw.normal(size=shape)}, {"p": pads}, batched=batch(draw)
    )


@into(PROBLEMS)
def Transpose(draw: Draw) -> Problem:
    shape = dims(draw)
    perm = f" <perm = {draw.permutation(len(shape)).tolist()}>" if draw.random() < 0.7 else ""
    return Problem(f"y = Transpose{perm} (x)", {"x": draw.normal(size=shape)}, batched=batch(draw))


def reshaped(draw: Draw, node: str, *numbers: int) -> Problem:
    x = draw.normal(size=(2, 1, draw.integers(1, 5), 1, 3))
    return Problem(f"y = {node}", {"x": x}, {"s": np.array(numbers)} if numbers else {}, batched=batch(draw))


PROBLEMS["Reshape"] = lambda draw: reshaped(draw, "Reshape (x, s)", *pick(draw, (-1,), (0, -1), (0, 0, -1, 1)))
PROBLEMS["Flatten"] = lambda draw: reshaped(draw, f"Flatten <axis = {draw.integers(0, 5)}> (x)")
PROBLEMS["Squeeze"] = lambda draw: reshaped(draw, "Squeeze (x, s)", *pick(draw, (1,), (1, 3), (-2,)))
PROBLEMS["Unsqueeze"] = lambda draw: reshaped(draw, "Unsqueeze (x, s)", *pick(draw, (1,), (0, 3), (-1,)))
PROBLEMS["Dropout"] = lambda draw: reshaped(draw, "Dropout (x)")


@into(PROBLEMS)
def Expand(draw: Draw) -> Problem:
    shape = dims(draw)
    return Problem("y = Expand (x, s)", {"x": draw.normal(size=stretched(draw, shape))}, {"s": np.array(shape)})


@into(PROBLEMS)
def Tile(draw: Draw) -> Problem:
    shape = dims(draw, 1, 3)
    return Problem("y = Tile (x, s)", {"x": draw.normal(size=shape)}, {"s": draw.integers(1, 4, len(shape))})


@into(PROBLEMS)
def Gather(draw: Draw) -> Problem:
    shape = dims(draw, 1, 3)
    axis = int(draw.integers(len(shape)))
    places = draw.integers(-shape[axis], shape[axis], dims(draw, 0, 2))
    known = batch(draw) if axis else ()
    return Problem(f"y = Gather <axis = {axis}> (x, i)", {"x": draw.normal(size=shape)}, {"i": places}, batched=known)


@into(PROBLEMS)
def GatherElements(draw: Draw) -> Problem:
    places = draw.integers(-4, 4, (3, draw.integers(1, 6)))
    return Problem("y = GatherElements <axis = 1> (x, i)", {"x": draw.normal(size=(3, 4))}, {"i": places})


@into(PROBLEMS)
def GatherND(draw: Draw) -> Problem:
    places = draw.integers(-3, 3, (draw.integers(1, 6), draw.integers(1, 3)))
    return Problem("y = GatherND (x, i)", {"x": draw.normal(size=(3, 3, 2))}, {"i": places})


@into(PROBLEMS)
def DepthToSpace(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 3), 4 * draw.integers(1, 4), 2, 3))}
    return Problem(f'y = DepthToSpace <blocksize = 2, mode = "{pick(draw, "DCR", "CRD")}"> (x)', x, batched=batch(draw))


@into(PROBLEMS)
def SpaceToDepth(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=(draw.integers(1, 3), draw.integers(1, 4), 4, 2 * draw.integers(1, 4)))}
    return Problem("y = SpaceToDepth <blocksize = 2> (x)", x, batched=batch(draw))


@into(PROBLEMS)
def Cast(draw: Draw) -> Problem:
    x = {"x": draw.normal(size=dims(draw))}
    return Problem("t = Cast <to = 11> (x) u = Mul (t, t) y = Cast <to = TO> (u)", x, batched=batch(draw))
