"""Recipes of operators with weights, of normalizations, pools, recurrent layers and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from model_builder import Array, Builder, Rejected
from recipe import Recipe


def images(array: Array) -> bool:
    """(N, C, L), or with more axes behind."""
    return array.ndim in (3, 4, 5) and array.dtype.kind == "f"


def _rows(array: Array) -> bool:
    return array.ndim >= 2 and array.shape[-1] <= 64


def conv(b: Builder, name: str, channels: int | None = None) -> str:
    """A convolution of a value, with what varies in convolutions."""
    given, axes = b.dims(name)[1], len(b.dims(name)) - 2
    group = int(b.choose([1, 1, 1, given, 2])) if channels is None else 1
    if given % group:
        group = 1
    out = channels or group * int(b.choose([1, 2, 3, 4]))
    size = int(b.choose([1, 3, 3, 2]))
    attributes: dict[str, Any] = {"kernel_shape": [size] * axes, "group": group}
    if b.chance(0.25):
        attributes["auto_pad"] = b.choose(["SAME_UPPER", "SAME_LOWER", "VALID"])
    else:
        attributes["pads"] = [size // 2] * (2 * axes)
    if b.chance(0.2):
        attributes["strides"] = [2] * axes
    elif b.chance(0.1) and "auto_pad" not in attributes:
        attributes["dilations"] = [2] * axes
    inputs = [name, b.weight(out, given // group, *[size] * axes, fan=given // group * size**axes)]
    if b.chance(0.6):
        inputs.append(b.weight(out))
    return str(b.add("Conv", inputs, **attributes))


def _conv(b: Builder) -> None:
    conv(b, b.pick(images))


def _conv_transpose(b: Builder) -> None:
    name = b.pick(images)
    given, axes = b.dims(name)[1], len(b.dims(name)) - 2
    group = given if b.chance(0.2) else 1
    weight = b.weight(given, 2, *[2] * axes, fan=given)
    b.add("ConvTranspose", [name, weight, *([b.weight(2 * group)] * b.chance(0.5))], strides=[2] * axes, group=group)


def _gemm(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 2)
    rows, columns = b.dims(name)
    ta, tb = int(b.chance(0.1)), int(b.chance(0.5))
    inner, out = (rows if ta else columns), int(b.choose([1, 3, 8]))
    shape = (out, inner) if tb else (inner, out)
    inputs = [name, b.weight(*shape, fan=inner)]
    if b.chance(0.7):
        inputs.append(b.weight(*b.choose([(out,), (1, out), (1,), ()])))
    alpha, beta = (0.5, 2.0) if b.chance(0.1) else (1.0, 1.0)
    b.add("Gemm", inputs, transA=ta, transB=tb, alpha=alpha, beta=beta)


def _matmul(b: Builder) -> None:
    name = b.pick(_rows)
    inner, kind = b.dims(name)[-1], b.rng.random()
    if kind < 0.6:
        product = b.add("MatMul", [name, b.weight(inner, int(b.choose([1, 4, 8])), fan=inner)])
        if b.chance(0.5):
            b.add("Add", [product, b.weight(b.dims(product)[-1])])
    elif kind < 0.75:
        rows = b.dims(name)[-2]
        b.add("MatMul", [b.weight(3, rows, fan=rows), name])
    else:
        axes = list(range(len(b.dims(name))))
        other = b.add("Transpose", [name], perm=[*axes[:-2], axes[-1], axes[-2]])
        b.add("MatMul", [name, other])


def _einsum(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 3)
    inner = b.dims(name)[-1]
    b.add("Einsum", [name, b.weight(inner, 4, fan=inner)], equation="bij,jk->bik")


def _recurrent(op_type: str, gates: int) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick(lambda array: array.ndim == 3 and array.shape[0] <= 12)
        width, hidden = b.dims(name)[-1], 4
        both = b.chance(0.2)
        n = 2 if both else 1
        inputs = [name, b.weight(n, gates * hidden, width, fan=width), b.weight(n, gates * hidden, hidden, fan=hidden)]
        if b.chance(0.6):
            inputs.append(b.weight(n, 2 * gates * hidden))
        direction = "bidirectional" if both else b.choose(["forward", "reverse"])
        made = b.add(op_type, inputs, 2, hidden_size=hidden, direction=direction)
        b.add("Squeeze", [made[0], b.ints(1)]) if b.opset >= 13 and not both else None

    return Recipe(make, 7, weight=0.7)


def _batch_norm(b: Builder) -> None:
    name = b.pick(images)
    channels = b.dims(name)[1]
    b.add("BatchNormalization", [name, *batch_norm_parameters(b, channels)])


def batch_norm_parameters(b: Builder, channels: int) -> list[str]:
    """Scale, bias, mean and variance."""
    variance = b.constant(np.abs(b.rng.standard_normal(channels)) + 0.2, b.real)
    return [b.weight(channels), b.weight(channels), b.weight(channels), variance]


def _instance_norm(b: Builder) -> None:
    name = b.pick(lambda array: images(array) and np.prod(array.shape[2:]) > 2)
    b.add("InstanceNormalization", [name, b.weight(b.dims(name)[1]), b.weight(b.dims(name)[1])])


def _layer_norm(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and array.shape[-1] > 2)
    width = b.dims(name)[-1]
    b.add("LayerNormalization", [name, b.weight(width), *([b.weight(width)] * b.chance(0.7))], axis=-1)


def _rms_norm(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and array.shape[-1] > 2)
    b.add("RMSNormalization", [name, b.weight(b.dims(name)[-1])])


def _group_norm(b: Builder) -> None:
    name = b.pick(lambda array: images(array) and array.shape[1] % 2 == 0)
    size = b.dims(name)[1] if b.opset >= 21 else 2
    b.add("GroupNormalization", [name, b.weight(size), b.weight(size)], num_groups=2)


def _normalization(op_type: str, since: int, **attributes: Any) -> Recipe:
    return Recipe(lambda b: b.add(op_type, [b.pick(lambda a: a.ndim == 4)], **attributes), since)


def _pool(op_type: str, since: int, **attributes: Any) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick(lambda array: images(array) and min(array.shape[2:]) >= 2)
        axes, more = len(b.dims(name)) - 2, dict(attributes)
        if op_type == "AveragePool" and b.chance(0.4):
            more |= {"pads": [1] * (2 * axes), "count_include_pad": int(b.chance(0.5))}
        if op_type != "LpPool" and b.chance(0.2):
            more["ceil_mode"] = int(op_type == "MaxPool" or b.opset >= 19)
        b.add(op_type, [name], kernel_shape=[2] * axes, strides=[int(b.choose([1, 2]))] * axes, **more)

    return Recipe(make, since, weight=2 if op_type != "LpPool" else 0.5)


def _global(op_type: str) -> Recipe:
    return Recipe(lambda b: b.add(op_type, [b.pick(images)]), weight=1 if "Average" in op_type else 0.5)


def _softmax(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick(lambda array: array.ndim >= 2)
        b.add(op_type, [name], axis=int(b.choose([-1, 1])))

    return Recipe(make, 11, weight=1.5 if op_type == "Softmax" else 0.5)


def _attention(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 3 and array.shape[-1] % 2 == 0)
    width = b.dims(name)[-1]
    if b.opset < 23:
        raise Rejected("not there yet")
    parts = [b.add("MatMul", [name, b.weight(width, width, fan=width)]) for _ in range(3)]
    b.add("Attention", parts, q_num_heads=2, kv_num_heads=2)


OPERATORS = {
    "Conv": Recipe(_conv, weight=8),
    "ConvTranspose": Recipe(_conv_transpose, 11, weight=2),
    "Gemm": Recipe(_gemm, 11, weight=4),
    "MatMul": Recipe(_matmul, weight=6),
    "Einsum": Recipe(_einsum, 12),
    "RNN": _recurrent("RNN", 1),
    "GRU": _recurrent("GRU", 3),
    "LSTM": _recurrent("LSTM", 4),
    "BatchNormalization": Recipe(_batch_norm, 9, weight=2),
    "InstanceNormalization": Recipe(_instance_norm, 6),
    "LayerNormalization": Recipe(_layer_norm, 17, weight=2),
    "RMSNormalization": Recipe(_rms_norm, 23),
    "GroupNormalization": Recipe(_group_norm, 18),
    "LRN": _normalization("LRN", 1, size=3),
    "LpNormalization": _normalization("LpNormalization", 1, axis=1),
    "MeanVarianceNormalization": _normalization("MeanVarianceNormalization", 9),
    "MaxPool": _pool("MaxPool", 11),
    "AveragePool": _pool("AveragePool", 11),
    "LpPool": _pool("LpPool", 11, p=2),
    **{name: _global(name) for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    **{name: _softmax(name) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    "Attention": Recipe(_attention, 23),
}
