"""Recipes of what exporters write in several nodes: residual and gated blocks, attention, activations, sequences."""

from __future__ import annotations

import numpy as np
from layer_operators import batch_norm_parameters, conv, images
from model_builder import Array, Builder
from onnx import helper
from recipe import Recipe


def _square(array: Array) -> bool:
    return array.ndim == 4 and min(array.shape[2:]) >= 3


def _residual(b: Builder) -> None:
    name = b.pick(_square)
    channels = b.dims(name)[1]
    inner = b.add("Conv", [name, b.weight(channels, channels, 3, 3, fan=9 * channels)], pads=[1, 1, 1, 1])
    if b.chance(0.5):
        inner = b.add("BatchNormalization", [inner, *batch_norm_parameters(b, channels)])
    inner = b.add(b.choose(["Relu", "Sigmoid"]), [inner])
    inner = b.add("Conv", [inner, b.weight(channels, channels, 1, 1, fan=channels), b.weight(channels)])
    b.add("Relu", [b.add("Add", [inner, name] if b.chance(0.5) else [name, inner])])


def _gated(b: Builder) -> None:
    """Squeeze and excite."""
    name = b.pick(images)
    channels = b.dims(name)[1]
    gate = b.add("GlobalAveragePool", [name])
    ones = [1] * (len(b.dims(name)) - 2)
    gate = b.add("Relu", [b.add("Conv", [gate, b.weight(2, channels, *ones, fan=channels)])])
    gate = b.add("Conv", [gate, b.weight(channels, 2, *ones, fan=2), b.weight(channels)])
    b.add("Mul", [name, b.add(b.choose(["Sigmoid", "HardSigmoid"]), [gate])])


def _cross_stage(b: Builder) -> None:
    """Parts of a Split, some of them worked on, joined again."""
    name = b.pick(lambda array: _square(array) and array.shape[1] % 2 == 0)
    half = b.dims(name)[1] // 2
    if b.opset >= 13:
        first, second = b.add("Split", [name, b.ints(half, half)], 2, axis=1)
    else:
        first, second = b.add("Split", [name], 2, axis=1)
    worked = b.add("Conv", [second, b.weight(half, half, 3, 3, fan=9 * half)], pads=[1, 1, 1, 1])
    b.add("Concat", [first, second, b.add("Add", [worked, second])], axis=1)


def _swish(b: Builder) -> None:
    name = b.pick()
    b.add("Mul", [name, b.add("Sigmoid", [name])])


def _hard_swish(b: Builder) -> None:
    name = b.pick()
    gate = b.add("Add", [name, b.constant(3.0, b.real)])
    gate = b.add("Clip", [gate, b.constant(0.0, b.real), b.constant(6.0, b.real)])
    product = b.add("Mul", [name, gate])
    b.add("Div", [product, b.constant(6.0, b.real)])


def _gelu(b: Builder) -> None:
    name = b.pick()
    inner = b.add("Erf", [b.add("Div", [name, b.constant(1.4142135, b.real)])])
    inner = b.add("Mul", [name, b.add("Add", [inner, b.constant(1.0, b.real)])])
    b.add("Mul", [inner, b.constant(0.5, b.real)])


def _normalized(b: Builder) -> None:
    """A layer normalization of its parts."""
    name = b.pick(lambda array: array.ndim >= 2 and array.shape[-1] > 2)
    axes = {"axes": [-1]} if b.opset < 18 else {}
    last = [] if axes else [b.ints(-1)]
    centered = b.add("Sub", [name, b.add("ReduceMean", [name, *last], **axes)])
    square = b.add("Pow", [centered, b.constant(2.0, b.real)])
    variance = b.add("ReduceMean", [square, *last], **axes)
    spread = b.add("Sqrt", [b.add("Add", [variance, b.constant(1e-3, b.real)])])
    scaled = b.add("Mul", [b.add("Div", [centered, spread]), b.weight(b.dims(name)[-1])])
    b.add("Add", [scaled, b.weight(b.dims(name)[-1])])


def _attention(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 3 and array.shape[-1] % 2 == 0 and array.shape[1] <= 16)
    batch, steps, width = b.dims(name)
    heads = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        part = b.add("MatMul", [name, b.weight(width, width, fan=width)])
        part = b.add("Add", [part, b.weight(width)]) if b.chance(0.5) else part
        part = b.add("Reshape", [part, b.ints(batch, steps, 2, width // 2)])
        heads.append(b.add("Transpose", [part], perm=perm))
    scores = b.add("Mul", [b.add("MatMul", heads[:2]), b.constant((width / 2) ** -0.5, b.real)])
    if b.chance(0.3):
        mask = np.where(np.tri(steps, dtype=bool), 0, -1e4)
        scores = b.add("Add", [scores, b.constant(mask, b.real)])
    mixed = b.add("MatMul", [b.add("Softmax", [scores], axis=-1), heads[2]])
    joined = b.add("Reshape", [b.add("Transpose", [mixed], perm=[0, 2, 1, 3]), b.ints(batch, steps, width)])
    b.add("Add", [b.add("MatMul", [joined, b.weight(width, width, fan=width)]), name])


def _head(b: Builder) -> None:
    """A pool, and a classifier behind it."""
    name = b.pick(lambda array: array.ndim == 4)
    channels = b.dims(name)[1]
    pooled = b.add("GlobalAveragePool", [name])
    flat = b.add("Flatten", [pooled]) if b.chance(0.5) else b.add("Reshape", [pooled, b.ints(-1, channels)])
    b.add("Gemm", [flat, b.weight(5, channels, fan=channels), b.weight(5)], transB=1)


def _layer_behind_layer(b: Builder) -> None:
    name = b.pick(images)
    first = conv(b, name)
    conv(b, b.add(b.choose(["Relu", "LeakyRelu", "Sigmoid", "Clip", "Neg"]), [first]))


def _same_twice(b: Builder) -> None:
    """One tensor on both sides."""
    name = b.pick(lambda array: array.ndim >= 2)
    if b.chance(0.5):
        b.add("Concat", [name, name], axis=1)
    else:
        b.add(b.choose(["Add", "Mul"]), [name, name])


def _sequence(b: Builder) -> None:
    """Values in a sequence, and one that is taken out of it, or all of them joined."""
    name = b.pick(lambda array: array.ndim >= 2)
    other = b.pick(lambda array: array.shape == b.dims(name))
    held, made = b.name("s"), b.name("v")
    nodes = [helper.make_node("SequenceConstruct", [name, other], [held], b.name("n"))]
    if b.chance(0.5):
        nodes.append(helper.make_node("SequenceAt", [held, b.constant(1, np.int64)], [made], b.name("n")))
    else:
        nodes.append(helper.make_node("ConcatFromSequence", [held], [made], b.name("n"), axis=1))
    b.append(nodes, [made])


OPERATORS = {
    "residual": Recipe(_residual, 9, weight=3),
    "gated": Recipe(_gated, 6, weight=2),
    "cross stage": Recipe(_cross_stage, 11, weight=2),
    "swish": Recipe(_swish, 6, weight=2),
    "hard swish": Recipe(_hard_swish, 11),
    "gelu": Recipe(_gelu, 9),
    "normalized": Recipe(_normalized, 11),
    "attention": Recipe(_attention, 11, weight=3),
    "head": Recipe(_head, 11, weight=2),
    "layers": Recipe(_layer_behind_layer, 11, weight=2),
    "same twice": Recipe(_same_twice, 7, weight=0.7),
    "sequence": Recipe(_sequence, 11, weight=0.5),
}
