"""Which activations must be scaled together, whose weights make them, and whose weights take the scale out again.

A space is a set of activations that carry one factor per channel: what a layer writes, all that scale-equivariant
operators make of it, and whatever these are added to. A space can be scaled if every reader of every activation in it
is known to let the factor through or to be a layer with a weight of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.channels import RESHAPES, regrouped
from quark_onnx.graph.view import is_op, rank
from quark_onnx.stages.equalize.equivariant_operators import (
    PASSES,
    SHAPES,
    SUMS,
    clip_bounds,
    why_no_bias,
    why_no_shift,
)
from quark_onnx.stages.equalize.scalable_layer import Layer, read


class Limit(NamedTuple):
    """A Clip in a space: the bounds that `tensor`, in runs of `repeat` channels, must not reach; a lower 0 is none."""

    tensor: str
    repeat: int
    lower: float
    upper: float


@dataclass
class Space:
    """Filled while the graph is read.

    producers, consumers   indices of layers
    reason                 why it cannot be scaled
    fixed_bias             why no bias can be moved through it
    """

    channels: int
    producers: list[int] = field(default_factory=list)
    consumers: list[int] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    reason: str | None = None
    fixed_bias: str | None = None


class Found(NamedTuple):
    """All layers and spaces of a model; `refused` are layers that are left out, with the reason."""

    layers: list[Layer]
    spaces: list[Space]
    refused: dict[str, str]


def find(model: Model) -> Found:
    """Read the graph from its inputs to its outputs."""
    finder = _Finder()
    for node in model.graph:
        finder.visit(node)
    finder.close(model)
    alive = [space for i, space in enumerate(finder.spaces) if finder.alias[i] == i]
    return Found(finder.layers, alive, finder.refused)


class _Finder:
    """Spaces under construction; `at` says in which space an activation is, and how many channels one factor covers."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.refused: dict[str, str] = {}
        self.spaces: list[Space] = []
        self.alias: list[int] = []
        self.at: dict[Value, tuple[int, int]] = {}

    def visit(self, node: Node) -> None:
        """Sort one node in."""
        if is_op(node, *LAYERS):
            self._layer(node)
        elif is_op(node, *SUMS):
            self._sum(node)
        elif is_op(node, *RESHAPES):
            self._reshape(node)
        elif is_op(node, *PASSES):
            self._pass(node)
        elif not is_op(node, *SHAPES):
            self._pin(node.inputs, f"{_title(node)} is not known to let a factor through")

    def close(self, model: Model) -> None:
        """What is seen from outside the graph, or from the bodies inside it, has to stay as it is."""
        for value in self.at:
            if value.is_graph_output():
                self._pin([value], f"{value.name!r} is a model output")
            if any(use.node.graph is not model.graph for use in value.uses()):
                self._pin([value], f"{value.name!r} is read inside a control-flow body")
        for space in self.spaces:
            space.reason = space.reason or (None if space.consumers else "no layer reads it")

    def _layer(self, node: Node) -> None:
        layer = read(node)
        if isinstance(layer, Skip):
            self.refused[node.name or ""] = layer.reason
            self._pin(node.inputs, f"{_title(node)}: {layer.reason}")
            return
        self._pin(node.inputs[1:], f"{_title(node)} reads it as a bias")
        self.layers.append(layer._replace(repeat=self._consumed(layer)))
        space = Space(layer.kernel.outputs, [len(self.layers) - 1], reason=layer.fixed_rows)
        space.fixed_bias = None if layer.bias is not None else "its layer has no bias"
        self.alias.append(len(self.spaces))
        self.at[node.outputs[0]] = (len(self.spaces), 1)
        self.spaces.append(space)

    def _consumed(self, layer: Layer) -> int:
        """Note the layer, soon to be appended, as a reader of its input's space; how many inputs share a factor."""
        node = layer.kernel.node
        space, repeat = self._space(node.inputs[0])
        if space is None:
            return 1
        if space.channels * repeat != layer.kernel.inputs:
            space.reason = space.reason or f"{_title(node)} has another number of inputs"
            return 1
        space.consumers.append(len(self.layers))
        missing = None if layer.bias is not None else f"{node.name!r} has no bias of its own"
        space.fixed_bias = space.fixed_bias or why_no_bias(node) or missing
        return repeat

    def _pass(self, node: Node) -> None:
        refusal = PASSES[node.op_type](node)
        if refusal is not None:
            self._pin(node.inputs, f"{_title(node)}: {refusal.reason}")
            return
        value = node.inputs[0]
        space, repeat = self._space(value)
        if space is None or value is None:
            return
        self.at[node.outputs[0]] = self.at[value]
        space.fixed_bias = space.fixed_bias or why_no_shift(node)
        low, high = clip_bounds(node) if is_op(node, "Clip") else (None, None)
        if low is not None and high is not None:
            space.limits.append(Limit(value.name or "", repeat, low, high))

    def _reshape(self, node: Node) -> None:
        value = node.inputs[0]
        space, _ = self._space(value)
        if space is None or value is None:
            return
        channels = regrouped(node)
        if channels is None or channels % space.channels:
            self._pin([value], f"{_title(node)}: its channels cannot be told from other axes")
        else:
            self.at[node.outputs[0]] = (self.at[value][0], channels // space.channels)

    def _sum(self, node: Node) -> None:
        """One space for all, if all have channels in the same place."""
        places = [self._space(value) for value in node.inputs]
        alike = {(space.channels, repeat) for space, repeat in places if space is not None}
        ranks = {rank(value) for value in node.inputs}
        if len(alike) != 1 or len(ranks) != 1 or None in ranks or any(space is None for space, _ in places):
            self._pin(node.inputs, f"{_title(node)}: a summand is not made by layers, or of another shape")
            return
        first, *others = (self.at[value] for value in node.inputs if value is not None)
        for other in others:
            self._merge(self._root(first[0]), self._root(other[0]))
        self.at[node.outputs[0]] = first
        space, _ = self._space(node.outputs[0])
        assert space is not None
        space.fixed_bias = why_no_shift(node)

    def _merge(self, kept: int, gone: int) -> None:
        if kept == gone:
            return
        into, source = self.spaces[kept], self.spaces[gone]
        into.producers += source.producers
        into.consumers += source.consumers
        into.limits += source.limits
        into.reason = into.reason or source.reason
        self.alias[gone] = kept

    def _root(self, index: int) -> int:
        while self.alias[index] != index:
            index = self.alias[index]
        return index

    def _space(self, value: Value | None) -> tuple[Space | None, int]:
        """The space of an activation and how many of its channels share a factor; None for a value in no space."""
        if value is None or value not in self.at:
            return None, 1
        index, repeat = self.at[value]
        return self.spaces[self._root(index)], repeat

    def _pin(self, values: Sequence[Value | None], reason: str) -> None:
        for value in values:
            space, _ = self._space(value)
            if space is not None:
                space.reason = space.reason or reason


def _title(node: Node) -> str:
    return f"{node.op_type} {node.name!r}"
