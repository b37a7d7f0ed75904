"""Fill the channels of depthwise convolutions up to whole blocks with channels of zeros.

    W₂ f(W₁ x + b₁)  =  [W₂ 0] f([W₁; 0] x + [b₁; 0])

for whatever f works channel by channel: what the new channels hold, nobody reads. A kernel that takes 16 channels at a
time takes the rest one by one: onnxruntime's needs twice as long for 200 channels as for 208, and longer for 8 than for
16, which is half of a block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import set_constant, set_integer
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, input_at, is_float, is_op, shape
from quark_onnx.stages.prepare.affine_layer import group

ONE_INPUT = frozenset(
    {"Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Gelu", "Mish", "Identity"}
)
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
TWO_INPUTS = frozenset({"Add", "Mul", "Sub"})
"""Operators that keep channels apart."""


class Found(NamedTuple):
    """New constants (node, input number, array), and the tensors that get more channels."""

    arrays: tuple[tuple[Node, int, NDArray[Any]], ...]
    values: tuple[Value, ...]


@dataclass
class _Space:
    """Tensors with the same channels on axis 1; convolutions → the axes of their weights along which these lie."""

    channels: int
    rank: int
    values: dict[Value, None] = field(default_factory=dict)
    axes: dict[Node, set[int]] = field(default_factory=dict)


def match(conv: Node, block: int, numbered: Collection[str]) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    weight = constant(input_at(conv, 1))
    if weight is None or not _is_depthwise(conv, weight):
        return Skip("it is not a depthwise convolution")
    more = -weight.shape[0] % block
    if not 0 < more <= min(block // 2, weight.shape[0]):
        return Skip("its channels fill whole blocks, or too many would be empty")
    space = _Space(weight.shape[0], weight.ndim)
    refusal = _explore(space, conv)
    if refusal is not None:
        return refusal
    for value in (value for node in space.axes for value in node.inputs[1:]):
        if value is not None and value.name in numbered:
            return Skip(f"{value.name!r} has numbers for each of its channels")
    arrays = tuple(array for node, axes in space.axes.items() for array in _widened(node, axes, more))
    return Found(arrays, tuple(space.values))


def _is_depthwise(node: Node, weight: NDArray[Any]) -> bool:
    return is_op(node, "Conv") and weight.ndim > 2 and group(node) == weight.shape[0] > 1 and weight.shape[1] == 1


def _explore(space: _Space, conv: Node) -> Skip | None:
    """Follow the channels from the convolution to the layers that begin and end them."""
    waiting: list[Value | None] = [conv.inputs[0], conv.outputs[0]]
    while waiting:
        value = waiting.pop()
        if value is None or value in space.values:
            continue
        space.values[value] = None
        producer, dims = value.producer(), shape(value)
        if producer is None or value.is_graph_output() or dims is None or dims[1:2] != (space.channels,):
            return Skip("its channels leave the graph, or their number is not known")
        if len(dims) != space.rank:
            return Skip(f"{value.name!r} has channels on another axis")
        for node in dict.fromkeys((producer, *value.consumers())):
            if node.graph is not conv.graph:
                return Skip("its channels are read inside a control-flow body")
            reached = _reach(space, node, value)
            if isinstance(reached, Skip):
                return reached
            waiting += reached
    return None


def _reach(space: _Space, node: Node, value: Value) -> Iterable[Value | None] | Skip:
    """Where else a node that makes or reads the value has its channels."""
    weight, bias = constant(input_at(node, 1)), input_at(node, 2)
    if is_op(node, *ONE_INPUT, *POOLS) and not any(output.uses() for output in node.outputs[1:]):
        return (node.inputs[0], *node.outputs[:1])
    if is_op(node, *TWO_INPUTS):
        known = [constant(one) for one in node.inputs]
        if any(array is not None and array.size != 1 for array in known):
            return Skip(f"{node.op_type} {node.name!r} has a constant per channel")
        return (*(one for one, array in zip(node.inputs, known, strict=True) if array is None), *node.outputs)
    if not is_op(node, "Conv") or weight is None or not is_float(node.inputs[1]):
        return Skip(f"{node.op_type} {node.name!r} is not known to keep channels apart")
    if bias is not None and constant(bias) is None:
        return Skip(f"the bias of {node.name!r} is computed at run time")
    if _is_depthwise(node, weight):
        space.axes.setdefault(node, set()).add(0)
        return (node.inputs[0], *node.outputs)
    if group(node) != 1:
        return Skip(f"{node.name!r} is a convolution in groups")
    space.axes.setdefault(node, set()).add(0 if node.outputs[0] is value else 1)
    return ()


def _widened(node: Node, axes: set[int], more: int) -> Iterable[tuple[Node, int, NDArray[Any]]]:
    """The weight with zeros behind these axes, and the bias with zeros for outputs."""
    weight, bias = constant(node.inputs[1]), constant(input_at(node, 2))
    assert weight is not None
    yield node, 1, np.pad(weight, [(0, more if axis in axes else 0) for axis in range(weight.ndim)])
    if bias is not None and 0 in axes:
        yield node, 2, np.pad(bias, (0, more))


def apply(found: Found) -> None:
    """Edit only."""
    for node, at, array in found.arrays:
        set_constant(node, at, array, f"{node.name}_filled")
        if at == 1 and group(node) > 1:
            set_integer(node, "group", array.shape[0])
    for value in found.values:
        value.shape = None


def rule(block: int, numbered: Collection[str]) -> Rule:
    """The rule for a kernel that takes so many channels at a time, and tensors with numbers for each of their own."""
    return Rule("fill-channels", ("Conv",), partial(match, block=block, numbered=numbered), apply)
