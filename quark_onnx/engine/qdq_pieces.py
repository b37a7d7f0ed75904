"""A QDQ model, of any tool, in pieces: each computes one tensor from others that the float model has, too.

A piece has the rounded weights of its layer and rounds what it makes. It reads values behind their quantizers, so
fed with exact ones it shows what this layer alone adds, and every rounding of the model is in one piece. The names of
layers and tensors are those of the float model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import CPU, LAYERS
from quark_onnx.engine.activation_grid import Grid, grid
from quark_onnx.engine.compare import Quantized, quantized_activations
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.segments import Segment
from quark_onnx.graph.subgraphs import behind, part, with_types
from quark_onnx.graph.view import constant, constant_tensor, input_at, is_op, sole_reader

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_BESIDE = (*QUANTIZERS, "Clip", "Cast")

MOVERS = tuple(name for name, op in CPU.items() if op.kind == "same" and name != "Resize")
"""Operators that compute no new values; Resize may."""

STEPS = 3
"""Nodes between a layer and the tensor that has its name in the float model: a bias or a cast."""


@dataclass(frozen=True)
class Stored:
    """A weight as integers.

    name    of the float weight
    value   that holds the rounded one
    scales  how many it has
    axis    of its output channels
    factor  by which its rows are smaller than those of the float weight: what the layer reads is multiplied by it, as
            SmoothQuant has it in a node of its own; None: no such node
    """

    name: str
    value: str
    dtype: str
    scales: int
    axis: int
    factor: NDArray[Any] | None = None

    def restored(self, rounded: NDArray[Any]) -> NDArray[Any]:
        """The rounded weight in the numbers of the float one."""
        if self.factor is None or rounded.ndim != 2:
            return rounded
        return np.asarray(rounded * self.factor.reshape((-1, 1) if self.axis in (-1, 1) else (1, -1)))


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece.

    tensor   what it computes, by its name in the float model
    node     the layer in it, or else the last node but quantizers; empty for an input that is only rounded
    inputs   input of `model` → tensor of the float model
    weights  of the layer; their values are outputs of `model`
    output   output of `model` that holds the tensor
    grid     of the tensor; None: it is not quantized, or has no single scale
    moves    it only moves values that are on its grid already, and adds no error
    """

    tensor: str
    node: str
    op_type: str
    inputs: Mapping[str, str]
    weights: tuple[Stored, ...]
    output: str
    grid: Grid | None
    moves: bool
    model: Model


@dataclass(frozen=True, eq=False)
class _End:
    """Where a piece ends, and others begin: behind the quantizer, or in front of it where they read that."""

    result: Value
    source: Value
    grid: Grid | None


def pieces(base: Model, quantized: Model, pairs: Mapping[str, str]) -> list[Piece]:
    """The pieces of a QDQ model, in order of its graph.

    Layers whose output is not quantized are pieces, too, where the float model has their output, and they round
    anything: a weight, an input at run time, or one that the float model does not have.

    Args:
        base: the float model that the quantized one was made from.
        pairs: tensor of the float model → tensor that holds its dequantized value.
    """
    typed = with_types(quantized)
    known = quantized_activations(typed)
    found = {name: _end(known[name]) for name in known if pairs.get(name) == known[name].result.name}
    ends = _clamped(found, {value.name for node in base.graph for value in node.outputs})
    twins = {node.name or "": node for node in base.graph}
    ends |= dict(_bare(base, typed, ends, {_layer(_segment(typed, ends, name).nodes, twins) for name in ends}))
    order = {value: index for index, value in enumerate(v for node in typed.graph for v in node.outputs)}
    names = sorted(ends, key=lambda name: order.get(ends[name].result, -1))
    return [_piece(typed, ends, name, twins) for name in names]


def _end(found: Quantized) -> _End:
    return _End(found.result, found.source, grid(found))


def _clamped(ends: Mapping[str, _End], known: set[str | None]) -> dict[str, _End]:
    """Ends moved behind a Relu or Clip that alone reads them: what it cuts off is no error."""
    sources = {end.source for end in ends.values()}
    moved = {}
    for name, end in ends.items():
        clamp = sole_reader(end.result)
        if clamp is None or not is_op(clamp, "Relu", "Clip") or clamp.inputs[0] is not end.result:
            moved[name] = end
        elif clamp.outputs[0] not in sources and clamp.outputs[0].name in known:
            moved[clamp.outputs[0].name or ""] = _End(clamp.outputs[0], clamp.outputs[0], end.grid)
    return moved


def _segment(model: Model, ends: Mapping[str, _End], name: str) -> Segment:
    cuts = {value for other, end in ends.items() if other != name for value in (end.source, end.result)}
    return behind(model, ends[name].result, cuts)


def _bare(
    base: Model, model: Model, ends: Mapping[str, _End], done: Collection[Node | None]
) -> Iterator[tuple[str, _End]]:
    """Ends of the layers that round something, and that no piece is called by yet."""
    known = {value.name for node in base.graph for value in node.outputs} - ends.keys()
    results = {end.result for end in ends.values()}
    for node in model.graph:
        if is_op(node, *LAYERS) and node not in done and any(map(_dequantized, set(node.inputs) - results)):
            value = _named(node.outputs[0], known)
            if value is not None:
                yield value.name or "", _End(value, value, None)


def _dequantized(value: Value | None) -> bool:
    return value is not None and is_op(value.producer(), "DequantizeLinear")


def _named(value: Value, known: set[str | None]) -> Value | None:
    """The value, or the nearest behind it, that the float model has."""
    for _ in range(STEPS):
        if value.name in known:
            return value
        readers = [use.node for use in value.uses()]
        if len(readers) != 1:
            return None
        value = readers[0].outputs[0]
    return None


def _piece(model: Model, ends: Mapping[str, _End], name: str, twins: Mapping[str, Node]) -> Piece:
    end, segment = ends[name], _segment(model, ends, name)
    layer = _layer(segment.nodes, twins)
    weights = () if layer is None else tuple(_weights(layer, twins))
    others = [(tensor, other) for tensor, other in ends.items() if tensor != name]
    origin = {value.name or "": tensor for tensor, other in others for value in (other.source, other.result)}
    inputs = {value: origin.get(value, value) for value in segment.inputs}
    return Piece(
        tensor=name,
        node="" if layer is None else layer.name or "",
        op_type="" if layer is None else layer.op_type,
        inputs=inputs,
        weights=weights,
        output=end.result.name or "",
        grid=end.grid,
        moves=_moves(segment.nodes) and all(t in ends and ends[t].grid == end.grid for t in inputs.values()),
        model=part(model, segment, [weight.value for weight in weights]),
    )


def _layer(nodes: Sequence[Node], twins: Mapping[str, Node]) -> Node | None:
    """The node that a piece is called by; a Clip or Cast only if the float model has it, too."""
    layers = [node for node in nodes if is_op(node, *LAYERS)]
    ours = [node for node in nodes if is_op(node, "Clip", "Cast") and node.name in twins]
    others = [node for node in nodes if not is_op(node, *_BESIDE)] or ours
    return layers[-1] if layers else others[-1] if others else None


def _moves(nodes: Sequence[Node]) -> bool:
    """Whether the nodes but quantizers give values of their first input only."""
    computing = [node for node in nodes if not is_op(node, *QUANTIZERS)]
    return bool(computing) and all(is_op(node, *MOVERS) for node in computing)


def _weights(layer: Node, twins: Mapping[str, Node]) -> Iterator[Stored]:
    """The constant inputs of a layer that are integers; `twins` are the nodes of the float model."""
    twin = twins.get(layer.name or "")
    for index in (0, 1):
        value = input_at(layer, index)
        producer = None if value is None else value.producer()
        ours = None if twin is None or twin.op_type != layer.op_type else input_at(twin, index)
        if value is None or producer is None or not is_op(producer, "DequantizeLinear") or ours is None:
            continue
        codes, scale = _codes(producer), constant_tensor(producer.inputs[1])
        if codes is not None and scale is not None and ours.is_initializer():
            dtype, scales = codes.dtype.name.lower(), math.prod(scale.shape)
            factor = _factor(input_at(layer, 1 - index), twins)
            yield Stored(ours.name or "", value.name or "", dtype, scales, _axis(layer, index), factor)


def _codes(dequantizer: Node) -> Any:
    """A tensor of the type of the codes: themselves, or the zero point where a constant is quantized in the model."""
    value = dequantizer.inputs[0]
    maker = None if value is None else value.producer()
    return constant_tensor(input_at(maker, 2) if maker is not None and is_op(maker, "QuantizeLinear") else value)


def _factor(data: Value | None, twins: Collection[str]) -> NDArray[Any] | None:
    """What a node that the float model does not have multiplies the data of a layer by."""
    node = None if data is None else data.producer()
    while node is not None and is_op(node, *QUANTIZERS, "Cast"):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or not is_op(node, "Mul", "Div") or node.name in twins:
        return None
    found = constant(node.inputs[1])
    if is_op(node, "Div"):
        return None if found is None else 1 / found
    return constant(node.inputs[0]) if found is None else found


def _axis(layer: Node, index: int) -> int:
    """The axis of the output channels of a weight."""
    if is_op(layer, "MatMul"):
        return -1 if index else -2
    transposed = is_op(layer, "Gemm") and bool(layer.attributes.get_int("transB", 0))
    return 0 if is_op(layer, "Conv") or transposed else 1
