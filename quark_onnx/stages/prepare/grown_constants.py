"""Constants that folding made larger than all that they are computed from, and that no layer needs.

    Expand(c, [1, 197, 768])        151,296 numbers for 768
    Transpose(w), w read as it is   w twice

Everything is folded first, to see what becomes of it: what ends up in a layer is worth its bytes, or its layer would
stay float. What is left over is the cheapest of two for each value, from the constants of the model onwards:

    bytes(v)  =  min(bytes of v as a constant,  bytes of its node + Σ bytes(inputs of the node))

where a constant that is in the model anyway costs nothing, and one that only such values read is shared among them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from quark_onnx.core.operators import CONTROL_FLOW, LAYERS
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.view import constant_tensor, is_constant, is_op, numpy_dtype, shape

SLACK = 1024
"""Bytes below which a constant is worth more: quantizers of a computed tensor are nodes, those of a constant none."""

_TABLES = (*LAYERS, "Gather")
"""Operators whose constants are weights, which are stored as integers."""


class _Cost(NamedTuple):
    """Bytes of a value, and the values that are computed then."""

    bytes: float
    computed: frozenset[str] = frozenset()


def grown_constants(before: Model, after: Model, sizes: Mapping[str, int]) -> frozenset[str]:
    """Values of the model `before` folding that are better computed than stored as they are in the one `after` it.

    Args:
        sizes: bytes of the constants that folding saw on its way, by name.
    """
    costs = _Costs(before, after, sizes)
    while costs.grown:
        found = {name: costs.of(name) for name in costs.grown}
        worth = {name for name, cost in found.items() if costs.held[name] - cost.bytes > SLACK}
        if worth == costs.grown:
            return frozenset().union(*(cost.computed for cost in found.values()))
        costs.consider(worth)
    return frozenset()


def as_good(model: Model, folded: Model) -> bool:
    """Whether a model that computes some constants has the layers, types and shapes of the one with all of them folded.

    A shape that depends on the numbers of a constant is lost with it.
    """
    if _layers(model) != _layers(folded):
        return False
    known = _known(model)
    return all(known.get(name, found) == found for name, found in _known(folded).items())


def _layers(model: Model) -> dict[str, list[bool]]:
    return {n.name or "": [is_constant(value) for value in n.inputs] for n in model.graph if is_op(n, *LAYERS)}


def _known(model: Model) -> dict[str, object]:
    return {v.name or "": (numpy_dtype(v), shape(v)) for node in model.graph for v in node.outputs}


class _Costs:
    """What values of a model cost, as constants or computed. `grown`: constants in question."""

    def __init__(self, before: Model, after: Model, sizes: Mapping[str, int]) -> None:
        made = Counter(value.name for node in _nodes(before) for value in node.outputs)
        self.makers = {v.name or "": node for node in _nodes(before) for v in node.outputs if made[v.name] == 1}
        self.given = {name: _bytes(value) for name, value in _constants(before).items()}
        self.sizes = sizes
        constants = _constants(after)
        self.held = {name: _bytes(value) for name, value in constants.items()}
        folded = self.held.keys() & self.makers.keys() - self.given.keys()
        self.consider({n for n in folded if self.held[n] > SLACK and not _is_weight(constants[n], after)})

    def consider(self, grown: set[str]) -> None:
        """These are in question; all other constants stay."""
        self.grown = grown
        self.readers: Counter[str] = Counter()
        for name in grown:
            self.readers.update(self._upstream(name))
        self.known: dict[str, _Cost] = {}

    def of(self, name: str) -> _Cost:
        """The cost of a constant in question if it is computed."""
        for other in reversed(self._upstream(name)):
            if other not in self.known:
                self.known[other] = self._cheapest(other)
        return self._computed(name)

    def _upstream(self, name: str) -> list[str]:
        """The value and all that it is computed from, readers first."""
        order: dict[str, None] = {}
        stack = [(name, iter(self._inputs(name)))]
        on_way = {name}
        while stack:
            above = next((other for other in stack[-1][1] if other not in on_way), None)
            if above is None:
                order[stack.pop()[0]] = None
            else:
                on_way.add(above)
                stack.append((above, iter(self._inputs(above))))
        return list(reversed(order))

    def _inputs(self, name: str) -> list[str]:
        maker = self.makers.get(name)
        return [] if maker is None else [value.name for value in maker.inputs if value is not None and value.name]

    def _cheapest(self, name: str) -> _Cost:
        share = max(1, self.readers[name])
        if name in self.held and name not in self.grown:
            return _Cost(0.0)
        if name in self.given:
            return _Cost(self.given[name] / share)
        stored = _Cost(self.held.get(name, self.sizes.get(name, math.inf)) / share)
        return min(stored, self._computed(name), key=lambda cost: cost.bytes)

    def _computed(self, name: str) -> _Cost:
        maker = self.makers.get(name)
        if maker is None or is_op(maker, *CONTROL_FLOW):
            return _Cost(math.inf)
        if any(value.name in self.held and value.name not in self.grown for value in maker.outputs):
            return _Cost(math.inf)  # another output of it is a constant that is needed
        inputs = [self.known[other] for other in self._inputs(name)]
        own = io.node_bytes(maker) / max(1, self.readers[name])
        return _Cost(own + sum(i.bytes for i in inputs), frozenset({name}).union(*(i.computed for i in inputs)))


def _nodes(model: Model) -> Iterator[Node]:
    for graph in model.graphs():
        yield from graph


def _constants(model: Model) -> dict[str, Value]:
    return {name: value for graph in model.graphs() for name, value in graph.initializers.items()}


def _bytes(value: Value) -> int:
    tensor = constant_tensor(value)
    return 0 if tensor is None else len(value.name or "") + int(tensor.nbytes)


def _is_weight(value: Value, model: Model) -> bool:
    """Whether a node of the main graph reads it as integers; what bodies hold is folded when they are quantized."""
    return any(is_op(use.node, *_TABLES) and use.node.graph is model.graph for use in value.uses())
