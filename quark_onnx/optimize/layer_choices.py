"""Which choices a layer has, what each costs, and the configuration that says so.

a8w8     as the configuration has it: integer kernels
a16w8    activations in 16 bits, where the target runs them
w4, w8   weights alone, in 4 or 8 bits; w4/32: in blocks of 32, for products of matrices. What goes in is float, so
         nothing of it is rounded, and no integer kernel runs
float    as it is
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import TABLE, Plan
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, rank, shape
from quark_onnx.optimize.layer_neighbours import followers
from quark_onnx.optimize.records import BYTES, EIGHTS, FLOAT, FOURS, INTEGERS, WORDS, LayerRow
from quark_onnx.stages.place.overridden_site import output_axis

TABLE_OP = "Gather"

BLOCKS = (32, 128)
"""Sizes of blocks that products of matrices have kernels for."""

ALONE: Mapping[str, Any] = {"activation_type": "float"}
NIBBLES: Mapping[str, Any] = {**ALONE, "weight_type": "uint4", "symmetric": False}
"""Four bits have no code to spare: a grid from the smallest to the largest weight halves the noise of one around 0."""


@dataclass(frozen=True)
class Weighted:
    """A node, and which of its inputs is the weight."""

    node: Node
    index: int

    @property
    def weight(self) -> Value:
        """The constant."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    @property
    def data(self) -> Value:
        """What the weight is multiplied with, or where rows are looked up."""
        value = self.node.inputs[1 - self.index]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Layer:
    """Nodes that are decided together: they read one weight; or all tables, which have one option; or a product of
    activations; or all nodes with quantizers that are near no layer.

    formats  choice → format of the weights; None: they stay float, or there is none
    others   nodes without a constant weight
    """

    parts: tuple[Weighted, ...]
    formats: Mapping[str, Format | None]
    others: tuple[Node, ...] = ()

    @property
    def every(self) -> tuple[Node, ...]:
        """Its nodes, in order of the graph."""
        return tuple(part.node for part in self.parts) + self.others

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of them."""
        return tuple(node.name or "" for node in self.every)

    @property
    def weights(self) -> Mapping[str, Value]:
        """By name."""
        return {part.weight.name or "": part.weight for part in self.parts}

    @property
    def elements(self) -> int:
        """Of all weights."""
        return sum(_size(value) for value in self.weights.values())

    def bytes(self, choice: str) -> int:
        """Of the weights with their scales and zero points."""
        return sum(_bytes(shape(value) or (), self.formats[choice]) for value in self.weights.values())


def layers_of(model: Model, plan: Plan, target: Target) -> list[Layer]:
    """All layers in order of the graph, with the choices that they have, and after them what belongs to none.

    Args:
        model: the float model that the plan belongs to.
        plan: of a configuration in 8 bits.
    """
    found: dict[str, list[Weighted]] = {}
    tables: list[Weighted] = []
    for part in _weighted(model, plan):
        if is_op(part.node, TABLE_OP):
            tables.append(part)
        else:
            found.setdefault(part.weight.name or "", []).append(part)
    layers = [Layer(tuple(parts), _formats(parts, plan, target)) for parts in found.values()]
    owned = {node for layer in layers for node in layer.every}
    free = [node for node in model.graph if node.name in plan.nodes and node not in owned and is_op(node, *LAYERS)]
    layers += [Layer((), _without_weight(target), (node,)) for node in free]
    order = {node: index for index, node in enumerate(model.graph)}
    layers.sort(key=lambda layer: order[layer.every[0]])
    lone = tuple(node for node, near in followers_of(model, plan, layers).items() if not near)
    if lone:
        layers.append(Layer((), _without_weight(target), tuple(n for n in model.graph if n.name in lone)))
    if tables:
        rows = plan.sites[tables[0].weight.name or ""].format
        fours = {f"{FOURS}/{BLOCKS[0]}": replace(rows, bits=4, axis=1, block=BLOCKS[0])}
        whole = all((shape(part.weight) or (0,))[-1] % BLOCKS[0] == 0 for part in tables)  # type: ignore[operator]
        layers.append(Layer(tuple(tables), {EIGHTS: rows, **(fours if whole else {})}))
    return layers


def followers_of(model: Model, plan: Plan, layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Node between layers → those that it is quantized for.

    Tables are none: where nothing behind them is on integers their rows are stored as such all the same. Nor is what
    smoothing has put in, which no configuration can name: it comes and goes with the products behind it.
    """
    apart = {node.name for node in model.graph if is_op(node, TABLE_OP) and constant(node.inputs[0]) is not None}
    apart |= {node.name for node in model.graph if _smooths(node, plan)}
    owner = {node: layer for layer in layers if BYTES in layer.formats for node in layer.every}
    return followers(model, plan.nodes.keys() - apart, owner)


def _smooths(node: Node, plan: Plan) -> bool:
    value, factor = input_at(node, 0), input_at(node, 1)
    return is_op(node, "Mul") and value is not None and value.name in plan.smoothed and constant(factor) is not None


def _without_weight(target: Target) -> dict[str, Format | None]:
    return {BYTES: None, **({WORDS: None} if _has_words(target) else {}), FLOAT: None}


def _has_words(target: Target) -> bool:
    return not target.on_cpu and any(name.endswith("int16") for name in target.activation_types)


def _weighted(model: Model, plan: Plan) -> Iterator[Weighted]:
    for node in model.graph:
        if is_op(node, TABLE_OP):
            site = plan.sites.get(node.inputs[0].name or "") if node.inputs and node.inputs[0] else None
            if site is not None and site.rule == TABLE:
                yield Weighted(node, 0)
        elif is_op(node, *LAYERS):
            for index in (1, 0):
                value = node.inputs[index] if len(node.inputs) > index else None
                other = node.inputs[1 - index] if value is not None else None
                if constant(value) is not None and other is not None and constant(other) is None:
                    yield Weighted(node, index)
                    break


def _formats(parts: Sequence[Weighted], plan: Plan, target: Target) -> dict[str, Format | None]:
    """The choices of layers that share a weight, most of them where the target has them."""
    weight = parts[0].weight
    site = plan.sites.get(weight.name or "")
    integers = site is not None and all(part.node.name in plan.nodes for part in parts)
    found: dict[str, Format | None] = {}
    if integers and site is not None:
        found[BYTES] = site.format
        if _has_words(target):
            found[WORDS] = site.format
    if target.on_cpu:
        axis = output_axis(weight, target.ops)
        eight = Format(8, signed=True, symmetric=True, axis=axis)
        found |= {EIGHTS: eight, FOURS: replace(eight, bits=4, signed=False, symmetric=False)}
        across = _input_axis(parts)
        if across is not None:
            four = replace(eight, bits=4, signed=False, symmetric=False, axis=across)
            found |= {f"{FOURS}/{size}": replace(four, block=size) for size in BLOCKS}
            del found[FOURS]  # without blocks there is no kernel for four bits
    return {**found, FLOAT: None}


def _input_axis(parts: Sequence[Weighted]) -> int | None:
    """The axis that products sum over, where all of them are products with a matrix on the right."""
    found = set()
    for part in parts:
        product = is_op(part.node, "MatMul", "Gemm") and part.index == 1 and rank(part.weight) == 2
        found.add(int(part.node.attributes.get_int("transB", 0) == 1) if product else None)
    return found.pop() if len(found) == 1 else None


def _size(value: Value) -> int:
    array = value.const_value
    return 0 if array is None else int(array.size)


def _bytes(dims: Sequence[int | None], format: Format | None) -> int:
    known = [dim or 1 for dim in dims]
    count = 1
    for dim in known:
        count *= dim
    if format is None:
        return 4 * count
    scales = 1
    if format.axis is not None:
        scales = known[format.axis]
        if format.block:
            scales = count // scales * -(-scales // format.block)
    zero_points = scales * format.storage_bits if not format.symmetric or format.block else 0
    return -(-(count * format.storage_bits + zero_points) // 8) + 4 * scales


def with_choices(
    config: QuantizationConfig, rows: Sequence[LayerRow], choices: Mapping[str, str]
) -> QuantizationConfig:
    """The configuration with these choices, by node, of the layers of a table.

    A node between layers is float where none of them is on integers.
    """
    types: dict[str, Mapping[str, Any]] = {}
    excluded: list[str] = []
    options = dict(config.extra_options)
    for row in rows:
        choice = choices[row.nodes[0]]
        if row.op_type == TABLE_OP:
            options |= {"TableBits": 8 if choice == EIGHTS else 4}
        elif choice == FLOAT:
            excluded += row.nodes
        elif choice != BYTES:
            types |= dict.fromkeys(row.nodes, _entry(choice, config))
    needed = {node for row in rows if choices[row.nodes[0]] in INTEGERS for node in row.followers}
    excluded += dict.fromkeys(node for row in rows for node in row.followers if node not in needed)
    options |= {"LayerTypes": types} if types else {}
    return replace(config, nodes_to_exclude=(*config.nodes_to_exclude, *excluded), extra_options=options)


def _entry(choice: str, config: QuantizationConfig) -> Mapping[str, Any]:
    name, _, block = choice.partition("/")
    if name == WORDS:
        wide = next(t for t in config.row.activation_types if t.endswith("int16"))
        return {"activation_type": wide}
    if name == EIGHTS:
        return {**ALONE, "weight_type": "int8", "symmetric": True}
    return {**NIBBLES, **({"BlockSize": int(block)} if block else {})}
