"""Recipes of operators that move, pick, join, repeat or sum values, and of shapes that are computed."""

from __future__ import annotations

import numpy as np
from layer_operators import images
from model_builder import Array, Builder, Rejected
from recipe import Recipe


def _wide(array: Array) -> bool:
    return array.ndim >= 2


def _axis(b: Builder, name: str, least: int = 2) -> int:
    """An axis that is long enough."""
    found = [axis for axis, size in enumerate(b.dims(name)) if size >= least]
    if not found:
        raise Rejected("all axes are short")
    return int(b.choose(found))


def _reshape(b: Builder) -> None:
    name = b.pick(_wide)
    shape = list(b.dims(name))
    kind = b.rng.random()
    if kind < 0.4:
        b.add("Reshape", [name, b.ints(shape[0], -1)])
    elif kind < 0.7:
        b.add("Reshape", [name, b.ints(0, int(np.prod(shape[1:])), *([1] * b.chance(0.5)))])
    else:
        whole = b.add("Shape", [name])
        first = b.add("Gather", [whole, b.ints(0)])
        target = b.add("Concat", [first, b.ints(-1)], axis=0)
        b.add("Reshape", [name, target])


def _transpose(b: Builder) -> None:
    name = b.pick(_wide)
    rest = 1 + b.rng.permutation(len(b.dims(name)) - 1)
    b.add("Transpose", [name], perm=[0, *map(int, rest)])


def _axes_operator(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        wanted = (lambda a: 1 in a.shape[1:]) if op_type == "Squeeze" else (lambda a: a.ndim < 5)
        name = b.pick(wanted)
        axis = 1 + b.dims(name)[1:].index(1) if op_type == "Squeeze" else int(b.choose([1, -1]))
        if b.opset >= 13:
            b.add(op_type, [name, b.ints(axis)])
        else:
            b.add(op_type, [name], axes=[axis])

    return Recipe(make)


def _concat(b: Builder) -> None:
    name = b.pick(_wide)
    axis = int(b.choose([1, -1]))
    shape = list(b.dims(name))

    def fits(array: Array) -> bool:
        other = list(array.shape)
        if len(other) != len(shape):
            return False
        other[axis] = shape[axis]
        return other == shape

    parts = [name, *(b.pick(fits) for _ in range(int(b.rng.integers(1, 3))))]
    b.add("Concat", [*parts, *([b.weight(*shape)] * b.chance(0.1))], axis=axis)


def _split(b: Builder) -> None:
    name = b.pick(lambda array: _wide(array) and any(size % 2 == 0 for size in array.shape[1:]))
    axis = next(i for i, size in enumerate(b.dims(name)) if i and size % 2 == 0)
    half = b.dims(name)[axis] // 2
    if b.opset >= 13:
        made = b.add("Split", [name, b.ints(half, half)], 2, axis=axis)
    else:
        made = b.add("Split", [name], 2, axis=axis, split=[half, half])
    if b.chance(0.4):
        b.add("Concat", [made[0], b.add("Relu", [made[1]]), made[1]], axis=axis)


def _slice(b: Builder) -> None:
    name = b.pick(_wide)
    axis = max(1, _axis(b, name))
    start, end, step = b.choose([(0, 2, 1), (1, 2**62, 1), (-1, -(2**62), -1), (0, 2**62, 2)])
    b.add("Slice", [name, b.ints(start), b.ints(end), b.ints(axis), b.ints(step)])


def _gather(b: Builder) -> None:
    integers = [n for n, a in b.values.items() if a.dtype == np.int64 and a.ndim in (1, 2) and a.min(initial=0) >= 0]
    if integers and b.chance(0.5):
        ids = str(b.choose(integers))
        table = b.weight(int(b.at(ids).max()) + 3, 6)
        b.add("Gather", [table, ids])
    else:
        name = b.pick(_wide)
        axis = max(1, _axis(b, name))
        b.add("Gather", [name, b.choose([b.ints(1, 0), b.constant(0, np.int64)])], axis=axis)


def _gather_elements(b: Builder) -> None:
    name = b.pick(lambda array: _wide(array) and array.size <= 512)
    b.add("GatherElements", [name, b.constant(np.zeros(b.dims(name)), np.int64)], axis=1)


def _gather_nd(b: Builder) -> None:
    b.add("GatherND", [b.pick(_wide), b.constant([[0], [0]], np.int64)])


def _scatter(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick(lambda array: array.ndim >= 2 and array.size <= 512)
        shape = b.dims(name)
        if op_type == "ScatterND":
            update = b.choose([b.weight(1, *shape[1:]), b.add("Slice", [name, b.ints(0), b.ints(1)])])
            b.add("ScatterND", [name, b.constant([[0]], np.int64), update])
        else:
            b.add("ScatterElements", [name, b.constant(np.zeros(shape), np.int64), b.pick(lambda a: a.shape == shape)])

    return Recipe(make, 11, weight=0.7)


def _pad(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and min(array.shape) >= 1)
    rank = len(b.dims(name))
    pads = [0] * (rank - 1) + [1] + [0] * (rank - 1) + [int(b.choose([0, 1]))]
    mode = b.choose(["constant", "constant", "reflect", "edge"])
    value = [b.constant(b.choose([0.0, 1.0, -0.5]), b.real)] * (mode == "constant" and b.chance(0.5))
    b.add("Pad", [name, b.ints(*pads), *value], mode=mode)


def _tile(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and array.size <= 256)
    b.add("Tile", [name, b.ints(*[1] * (len(b.dims(name)) - 1), 2)])


def _expand(b: Builder) -> None:
    name = b.pick(lambda array: 1 in array.shape and array.ndim >= 2)
    b.add("Expand", [name, b.ints(*(3 if size == 1 and i else size for i, size in enumerate(b.dims(name))))])


def _depth_to_space(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 4 and array.shape[1] % 4 == 0)
    b.add("DepthToSpace", [name], blocksize=2, mode=b.choose(["DCR", "CRD"]))


def _space_to_depth(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 4 and array.shape[2] % 2 == 0 and array.shape[3] % 2 == 0)
    b.add("SpaceToDepth", [name], blocksize=2)


def _resize(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 4 and array.size <= 512)
    mode = b.choose(["nearest", "linear", "cubic"])
    if b.chance(0.5):
        sizes = [*b.dims(name)[:2], *(size + 2 for size in b.dims(name)[2:])]
        b.add("Resize", [name, "", "", b.ints(*sizes)], mode=mode)
    else:
        how = b.choose(["half_pixel", "asymmetric", "align_corners"])
        scales = b.constant([1, 1, 2, 1.5], np.float32)
        b.add("Resize", [name, "", scales], mode=mode, coordinate_transformation_mode=how)


def _trilu(b: Builder) -> None:
    b.add("Trilu", [b.pick(_wide)], upper=int(b.chance(0.5)))


def _cumsum(b: Builder) -> None:
    b.add("CumSum", [b.pick(_wide), b.constant(1, np.int64)])


def _top_k(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and array.shape[-1] >= 2)
    b.add("TopK", [name, b.ints(2)], 2)


def _arg(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        b.add(op_type, [b.pick(_wide)], axis=int(b.choose([1, -1])), keepdims=int(b.chance(0.5)))

    return Recipe(make, 11, weight=0.5)


def _one_hot(b: Builder) -> None:
    name = b.add("ArgMax", [b.pick(_wide)], axis=-1, keepdims=0)
    b.add("OneHot", [name, b.constant(6, np.int64), b.constant([0, 1], b.real)])


def _compress(b: Builder) -> None:
    name = b.pick(_wide)
    b.add("Compress", [name, b.constant(np.arange(b.dims(name)[1]) % 2 == 0)], axis=1)


def _grid_sample(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 4)
    grid = b.constant(b.rng.uniform(-1, 1, (b.dims(name)[0], 3, 3, 2)), b.real)
    b.add("GridSample", [name, grid], mode="bilinear" if b.opset < 20 else "linear")


def _crop(b: Builder) -> None:
    name = b.pick(images)
    b.add("CenterCropPad", [name, b.ints(3)], axes=[2])


def _reverse(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and array.shape[1] >= 2)
    batch, time = b.dims(name)[:2]
    b.add("ReverseSequence", [name, b.constant([time] * batch, np.int64)], batch_axis=0, time_axis=1)


def _reduce(op_type: str) -> Recipe:
    by_input = 13 if op_type == "ReduceSum" else 18

    def make(b: Builder) -> None:
        name = b.pick(_wide)
        axes = b.choose([[-1], [1], list(range(2, len(b.dims(name)))) or [-1]])
        keep = int(b.chance(0.6))
        if op_type == "ReduceLogSum":
            name = b.add("Softplus", [name])
        if b.opset >= by_input:
            b.add(op_type, [name, b.ints(*axes)], keepdims=keep)
        else:
            b.add(op_type, [name], axes=axes, keepdims=keep)

    return Recipe(make, 11, weight=1.5 if op_type == "ReduceMean" else 0.5)


def _constant_of_shape(b: Builder) -> None:
    name = b.pick()
    shape = b.add("Shape", [name])
    zeros = b.add("ConstantOfShape", [shape])
    if b.real == np.float32:
        b.add("Add", [name, zeros])


def _range(b: Builder) -> None:
    name = b.pick(_wide)
    last = b.add("Gather", [b.add("Shape", [name]), b.constant(-1, np.int64)])
    steps = b.add("Range", [b.constant(0, np.int64), last, b.constant(1, np.int64)])
    table = b.add("Gather", [b.weight(b.dims(name)[-1]), steps])
    b.add("Add", [name, table])


def _size(b: Builder) -> None:
    name = b.pick()
    kind = {np.dtype(np.float32): 1, np.dtype(np.float16): 10}[b.real]
    b.add("Div", [name, b.add("Cast", [b.add("Size", [name])], to=kind)])


_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd")
OPERATORS = {
    "Reshape": Recipe(_reshape, 5, weight=3),
    "Transpose": Recipe(_transpose, weight=3),
    "Flatten": Recipe(lambda b: b.add("Flatten", [b.pick(_wide)]), weight=2),
    "Squeeze": _axes_operator("Squeeze"),
    "Unsqueeze": _axes_operator("Unsqueeze"),
    "Concat": Recipe(_concat, weight=4),
    "Split": Recipe(_split, 11, weight=2),
    "Slice": Recipe(_slice, 10, weight=1.5),
    "Gather": Recipe(_gather, 11, weight=1.5),
    "GatherElements": Recipe(_gather_elements, 11, weight=0.5),
    "GatherND": Recipe(_gather_nd, 11, weight=0.5),
    "ScatterElements": _scatter("ScatterElements"),
    "ScatterND": _scatter("ScatterND"),
    "Pad": Recipe(_pad, 11, weight=1.5),
    "Tile": Recipe(_tile, 6),
    "Expand": Recipe(_expand, 8),
    "DepthToSpace": Recipe(_depth_to_space, 11),
    "SpaceToDepth": Recipe(_space_to_depth),
    "Resize": Recipe(_resize, 13, weight=1.5),
    "Trilu": Recipe(_trilu, 14, weight=0.5),
    "CumSum": Recipe(_cumsum, 11, weight=0.5),
    "TopK": Recipe(_top_k, 11, weight=0.5),
    "ArgMax": _arg("ArgMax"),
    "ArgMin": _arg("ArgMin"),
    "OneHot": Recipe(_one_hot, 11, weight=0.5),
    "Compress": Recipe(_compress, 11, weight=0.5),
    "GridSample": Recipe(_grid_sample, 16),
    "CenterCropPad": Recipe(_crop, 18, weight=0.5),
    "ReverseSequence": Recipe(_reverse, 10, weight=0.5),
    **{name: _reduce(name) for name in (*_REDUCTIONS, "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")},
    "ConstantOfShape": Recipe(_constant_of_shape, 9, weight=0.5),
    "Range": Recipe(_range, 11, weight=0.5),
    "Size": Recipe(_size, weight=0.3),
}
