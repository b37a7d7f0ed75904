"""Which axis of an output holds classes, and as what: the probabilities of a Softmax, or logits."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from quark_onnx.core.operators import LAYERS
from quark_onnx.graph.view import is_op, rank, shape

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "Clip")
_PASSED = (
    *_QUANTIZERS,
    "Add",
    "Cast",
    "Flatten",
    "Identity",
    "LogSoftmax",
    "Max",
    "Mul",
    "Reshape",
    "Squeeze",
    "Sub",
    "Sum",
)
_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "ReduceMean")
_IMAGES = ("Conv", "ConvTranspose", "Resize", "GlobalAveragePool")


@dataclass(frozen=True)
class Classes:
    """Along which axis an output has them, and whether as probabilities or as logits."""

    axis: int
    probabilities: bool


def classes(output: ir.Value) -> Classes | None:
    """The classes of an output; None: it holds something else, embeddings or independent probabilities say.

    Where its Softmax is they are probabilities; of (samples, classes), what a layer computes is logits.
    """
    maker, dims = _behind(output, _QUANTIZERS), shape(output)
    if is_op(maker, "Softmax"):
        return Classes(_softmax_axis(maker, output), probabilities=True)
    if rank(output) != 2 or (dims is not None and dims[1] == 1):
        return None
    source = _behind(output, _PASSED)
    if is_op(source, "Softmax"):
        return Classes(1, probabilities=True)
    if is_op(source, *_POOLS):
        assert source is not None
        source = _behind(source.outputs[0], (*_PASSED, *_POOLS, "Relu"))
    return Classes(1, probabilities=False) if is_op(source, *LAYERS) else None


def labelled_classes(output: ir.Value) -> Classes:
    """The classes that labels name, where they are said to: as `classes` finds them, else logits.

    Of images along the axis of channels, of anything else along the last.
    """
    found, axes = classes(output), rank(output) or 1
    if found is not None:
        return found
    images = axes > 3 or (axes == 3 and is_op(_behind(output, _QUANTIZERS), *_IMAGES))
    return Classes(1 if images else axes - 1, probabilities=False)


def _softmax_axis(node: ir.Node | None, output: ir.Value) -> int:
    assert node is not None
    return int(node.attributes.get_int("axis", -1)) % (rank(output) or 1)


def _behind(value: ir.Value, passed: tuple[str, ...]) -> ir.Node | None:
    """The node that makes a value, these operators aside."""
    node = value.producer()
    while node is not None and is_op(node, *passed):
        makers = (one.producer() for one in node.inputs if one is not None)
        node = next((maker for maker in makers if maker is not None), None)
    return node
