"""Recipes of the operators that onnxruntime's optimizers write: attention, layers, normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np
from model_builder import Array, Builder, Rejected
from recipe import Recipe

HEADS = 2


def _add(b: Builder, op_type: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> Any:
    return b.add(op_type, inputs, outputs, domain="com.microsoft", **attributes)


def _single(array: Array) -> bool:
    return bool(array.dtype == np.float32)


def _sequences(array: Array) -> bool:
    return array.ndim == 3 and _single(array) and array.shape[2] % (2 * HEADS) == 0


def _gelu(op_type: str) -> Recipe:
    def make(b: Builder) -> None:
        name = b.pick(lambda array: _single(array) and array.ndim > 0)
        alpha = {"alpha": float(b.choose([1.0, 1.702, 0.5]))} if op_type == "QuickGelu" else {}
        biased = op_type == "BiasGelu" or (op_type == "FastGelu" and b.chance(0.5))
        _add(b, op_type, [name, b.weight(b.dims(name)[-1])] if biased else [name], **alpha)

    return Recipe(make, weight=0.5)


def _skip_norm(op_type: str) -> Recipe:
    """Also of the sum, and with a bias."""

    def make(b: Builder) -> None:
        name = b.pick(lambda array: array.ndim == 3 and _single(array))
        other, width = b.pick(lambda array: array.shape == b.dims(name)), b.dims(name)[-1]
        inputs = [name, other, b.weight(width), *([b.weight(width)] if op_type == "SkipLayerNormalization" else [])]
        inputs += [b.weight(width)] if b.chance(0.5) else []
        if b.chance(0.3):
            _add(b, op_type, inputs, 4, epsilon=1e-3)
        else:
            _add(b, op_type, inputs, epsilon=1e-3)

    return Recipe(make, weight=0.5)


def _simplified_norm(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 3 and _single(array))
    b.add("SimplifiedLayerNormalization", [name, b.weight(b.dims(name)[-1])], axis=-1, epsilon=1e-3)


def _embedding(b: Builder) -> None:
    try:
        ids = b.pick(lambda array: array.dtype == np.int64 and array.ndim == 2 and array.min() >= 0, real=False)
    except Rejected:
        ids = b.add("ArgMax", [b.pick(lambda array: array.ndim == 3 and _single(array))], axis=2, keepdims=0)
    rows, width, steps = int(b.at(ids).max()) + 7, 2 * HEADS, b.dims(ids)[1]
    ids = b.add("Cast", [ids], to=6)
    tables = [b.weight(rows, width), b.weight(steps + 1, width), "", b.weight(width), b.weight(width)]
    _add(b, "EmbedLayerNormalization", [ids, "", *tables], 2, epsilon=1e-3)


def _fused_matmul(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim >= 2 and _single(array))
    rows, columns = b.dims(name)[-2:]
    swapped, turned = int(b.chance(0.4)), int(b.chance(0.4))
    inner, scale = rows if swapped else columns, float(b.choose([1.0, 0.5]))
    if b.chance(0.3):
        other, turned = name, 1 - swapped
    else:
        other = b.weight(3, inner, fan=inner) if turned else b.weight(inner, 3, fan=inner)
    _add(b, "FusedMatMul", [name, other], transA=swapped, transB=turned, alpha=scale)


def _fused_conv(b: Builder) -> None:
    name = b.pick(lambda array: array.ndim == 4 and _single(array) and min(array.shape[2:]) >= 3)
    channels = b.dims(name)[1]
    function, numbers = b.choose([("Relu", []), ("LeakyRelu", [0.1]), ("Clip", [0.0, 6.0]), ("Sigmoid", [])])
    inputs = [name, b.weight(channels, channels, 3, 3, fan=9 * channels), b.weight(channels)]
    inputs += [name] if b.chance(0.3) else []
    more = {"activation_params": numbers} if numbers else {}
    _add(b, "FusedConv", inputs, activation=function, pads=[1, 1, 1, 1], **more)


def _attention(b: Builder) -> None:
    """Masked, causal, of a weight that it holds; or of three products."""
    name = b.pick(_sequences)
    batch, steps, width = b.dims(name)
    causal, mask = int(b.chance(0.3)), ""
    if b.chance(0.4):
        kept = np.arange(steps)[None] < b.rng.integers(1, steps + 1, (batch, 1))
        mask = b.constant(kept, np.int32)
    if b.chance(0.6):
        inputs = [name, b.weight(width, 3 * width, fan=width), b.weight(3 * width), mask]
        _add(b, "Attention", inputs, num_heads=HEADS, unidirectional=causal)
    else:
        parts = [b.add("MatMul", [name, b.weight(width, width, fan=width)]) for _ in range(3)]
        _add(b, "MultiHeadAttention", [*parts, "", mask], num_heads=HEADS, unidirectional=causal)


OPERATORS = {
    **{f"com.microsoft.{name}": _gelu(name) for name in ("Gelu", "QuickGelu", "FastGelu", "BiasGelu")},
    **{
        f"com.microsoft.{name}": _skip_norm(name)
        for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
    "SimplifiedLayerNormalization": Recipe(_simplified_norm, weight=0.3),
    "com.microsoft.EmbedLayerNormalization": Recipe(_embedding, weight=0.5),
    "com.microsoft.FusedConv": Recipe(_fused_conv),
    "com.microsoft.FusedMatMul": Recipe(_fused_matmul),
    "com.microsoft.Attention": Recipe(_attention),
}
