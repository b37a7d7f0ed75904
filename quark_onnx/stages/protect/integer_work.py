"""What integers buy: multiplications on integer kernels, and an estimate of the time that a model takes.

The unit is a multiply-add in float32. By onnxruntime 1.32 on one thread of an x64 processor with VNNI, on the models of
docs/real_models.md, one of int8 takes a third of it; an elementwise operator takes as long as six of them for a value
in float, and as three on integers. An estimate, because equal inputs give equal plans: a clock would not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quark_onnx.core.operators import LAYERS
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.channel_probe import with_shapes
from quark_onnx.graph.view import is_op, shape

PRODUCT = 1 / 3
"""Of an integer multiply-add."""

VALUE = {True: 3.0, False: 6.0}
"""Of a value that an elementwise operator makes, on integers and in float."""


@dataclass(frozen=True)
class Work:
    """What one sample takes, by node: multiply-adds of layers, and values that other operators make."""

    products: Mapping[str, int]
    values: Mapping[str, int]

    def on_integers(self, quantized: Collection[str]) -> int:
        """Multiply-adds that these nodes do."""
        return sum(count for name, count in self.products.items() if name in quantized)

    def time(self, quantized: Collection[str]) -> float:
        """The estimate, where these nodes are quantized."""
        layers = sum(count * (PRODUCT if name in quantized else 1) for name, count in self.products.items())
        return layers + sum(count * VALUE[name in quantized] for name, count in self.values.items())


def work_of(model: Model, nodes: Collection[str], feed: Feed) -> Work:
    """The work of these nodes on one sample, whose sizes are those that a run shows.

    Raises:
        DataError: the model fails on the sample.
    """
    counted = {node: next(v.name for v in node.outputs if v.name) for node in model.graph if node.name in nodes}
    names = {value.name or "" for node in counted if is_op(node, *LAYERS) for value in node.inputs[:2] if value}
    wanted = sorted((names | set(counted.values())) - model.graph.initializers.keys())
    probed, outputs = with_shapes(model, wanted)
    arrays = Runner(probed, list(outputs.values()))(feed)
    shapes = {name: tuple(array.tolist()) for name, array in zip(outputs, arrays, strict=True)}
    products, values = {}, {}
    for node, output in counted.items():
        made = math.prod(shapes[output])
        if is_op(node, *LAYERS):
            products[node.name or ""] = made * _depth(node, shapes)
        else:
            values[node.name or ""] = made
    return Work(products, values)


def _depth(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Products that are added up for one value of the output."""
    data, weight = (_dims(value, shapes) for value in node.inputs[:2])
    if is_op(node, "MatMul"):
        return data[-1]
    if is_op(node, "Gemm"):
        return weight[1 if node.attributes.get_int("transB", 0) else 0]
    if is_op(node, "Conv"):
        return math.prod(weight[1:])
    apart = node.attributes.get_int("group", 1) * math.prod(node.attributes.get_ints("strides", ()))
    return max(1, weight[0] * math.prod(weight[2:]) // apart)


def _dims(value: Value | None, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """As seen, or of a constant."""
    name = "" if value is None else value.name or ""
    return shapes[name] if name in shapes else tuple(size or 1 for size in shape(value) or ())
