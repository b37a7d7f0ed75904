"""Patterns of nodes that are one operator to the target (`supergroup_pass_list`): nothing inside carries a quantizer.

    MatmulAdd            x W + b                                     → Gemm; W has two axes, b one
    LayerNormalization   (x − E x) / √(E (x − E x)² + ε) · γ + β     γ and β are constants, and may be absent
    RMSNormalization     x / √(E x² + ε) · γ                         γ is a constant, and may be absent
    MaskedSoftmax        Softmax(Where(mask, x, min x + c))          c ≤ −20: what the mask hides vanishes

Division may be written as product with the reciprocal or with the power −½, the square as x · x or as power.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import constant, input_at, is_constant, is_op, rank, sole_reader
from quark_onnx.stages.simulated_placement.units import Unit, behind_transpose, present

HIDDEN = -20.0
"""Masked logits are at least this far below the smallest: their probability is less than a step of 16 bits."""

MASK_RANK = 4


def fused(graph: Graph, passes: Sequence[str]) -> list[Unit]:
    """The units that the patterns named in `passes` make of the graph. No node is in two."""
    units: list[Unit] = []
    taken: set[Node] = set()
    for pattern in (pattern for name, pattern in PATTERNS if name in passes):
        for node in graph:
            unit = pattern(node)
            if unit is not None and taken.isdisjoint(unit.nodes):
                units.append(unit)
                taken.update(unit.nodes)
    return units


def matmul_add(node: Node) -> Unit | None:
    """A product with a constant matrix, and the constant row added to it."""
    add = sole_reader(node.outputs[0]) if is_op(node, "MatMul") else None
    if add is None or not is_op(add, "Add"):
        return None
    weight, bias = node.inputs[1], _other(add, node.outputs[0])
    nodes = [node, add]
    stored = behind_transpose(weight)
    if stored is not None and weight is not None and sole_reader(weight) is node:
        nodes.insert(0, weight.producer())  # type: ignore[arg-type]
        weight = stored
    if node.inputs[0] is None or not is_constant(weight) or rank(weight) != 2 or not _row(bias):
        return None
    params = {"weight": weight, "bias": bias}
    inputs = present((node.inputs[0], weight, bias))
    return Unit("Gemm", "Gemm", tuple(nodes), inputs, tuple(add.outputs), params, stored is weight)  # type: ignore[arg-type]


def _row(value: Value | None) -> bool:
    return is_constant(value) and rank(value) == 1


def _other(node: Node, value: Value) -> Value | None:
    """The input of a node of two inputs that is not `value`."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _scalar(value: Value | None) -> float | None:
    array = constant(value)
    return float(array.item()) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None


@dataclass(frozen=True)
class _Core:
    """x / √(E x² + ε): the nodes in order, the last of which computes it."""

    data: Value
    nodes: tuple[Node, ...]


def _core(square: Node) -> _Core | None:
    """The pattern that begins with the square of its input."""
    data = square.inputs[0] if square.inputs else None
    if data is None or not _squares(square):
        return None
    mean = _next(square, "ReduceMean")
    add = _next(mean, "Add")
    root = _next(add, "Sqrt", "Pow")
    if mean is None or add is None or root is None or _scalar(_other(add, mean.outputs[0])) is None:
        return None
    nodes = (square, mean, add, root)
    if is_op(root, "Pow"):
        inverse = root if _scalar(root.inputs[1]) == -0.5 else None
        return _times(data, inverse, nodes)
    last = _next(root, "Div", "Reciprocal")
    if last is None:
        return None
    if is_op(last, "Div") and last.inputs[0] is data:
        return _Core(data, (*nodes, last))
    is_inverse = is_op(last, "Reciprocal") or _scalar(last.inputs[0]) == 1.0
    return _times(data, last if is_inverse else None, (*nodes, last))


def _times(data: Value, inverse: Node | None, nodes: tuple[Node, ...]) -> _Core | None:
    """The core that ends with the product of its data and the inverse of the root."""
    last = _next(inverse, "Mul")
    if last is None or inverse is None or _other(last, inverse.outputs[0]) is not data:
        return None
    return _Core(data, (*nodes, last))


def _squares(node: Node) -> bool:
    if is_op(node, "Pow"):
        return _scalar(node.inputs[1]) == 2.0
    return is_op(node, "Mul") and node.inputs[0] is node.inputs[1]


def _next(node: Node | None, *op_types: str) -> Node | None:
    """The one reader of what a node computes, if it is one of these operators."""
    reader = None if node is None else sole_reader(node.outputs[0])
    return reader if is_op(reader, *op_types) else None


def _affine(core: _Core) -> tuple[tuple[Node, ...], Value | None]:
    """The core with the product behind it, a Cast in between or not; and the constant it is multiplied by."""
    end = core.nodes[-1]
    cast = _next(end, "Cast")
    product = _next(cast or end, "Mul")
    scale = None if product is None else _other(product, (cast or end).outputs[0])
    if product is None or not is_constant(scale):
        return core.nodes, None
    return (*core.nodes, *([cast] if cast else []), product), scale


def rms_normalization(node: Node) -> Unit | None:
    """The pattern whose square is `node`."""
    core = _core(node)
    if core is None:
        return None
    nodes, scale = _affine(core)
    return _normalization("RMSNormalization", core.data, nodes, {"weight": scale})


def scaled_layer_normalization(node: Node) -> Unit | None:
    """The pattern whose mean is `node`, if it has a scale."""
    unit = layer_normalization(node)
    return unit if unit is not None and unit.params else None


def layer_normalization(node: Node) -> Unit | None:
    """The pattern whose mean is `node`."""
    centred = _next(node, "Sub") if is_op(node, "ReduceMean") else None
    if centred is None or node.inputs[0] is None or centred.inputs[0] is not node.inputs[0]:
        return None
    square = next((reader for reader in centred.outputs[0].consumers() if _squares(reader)), None)
    core = None if square is None else _core(square)
    if core is None or any(reader not in core.nodes for reader in centred.outputs[0].consumers()):
        return None
    nodes, scale = _affine(core)
    add = None if scale is None else _next(nodes[-1], "Add")
    bias = None if add is None else _other(add, nodes[-1].outputs[0])
    nodes = (node, centred, *nodes, *([add] if add is not None and is_constant(bias) else []))
    params = {"weight": scale, "bias": bias if is_constant(bias) else None}
    return _normalization("LayerNormalization", node.inputs[0], nodes, params)


def _normalization(kind: str, data: Value, nodes: tuple[Node, ...], params: dict[str, Value | None]) -> Unit:
    held = {name: value for name, value in params.items() if value is not None}
    return Unit(kind, kind, nodes, (data, *held.values()), tuple(nodes[-1].outputs), held)


def masked_softmax(node: Node) -> Unit | None:
    """The pattern whose Softmax is `node`. The constant is no input: it says what to hide, not how much."""
    where = input_at(node, 0)
    choice = None if where is None else where.producer()
    if choice is None or not is_op(node, "Softmax") or not is_op(choice, "Where") or _next(choice, "Softmax") is None:
        return None
    mask, data, hidden = choice.inputs
    add = None if hidden is None else hidden.producer()
    if mask is None or data is None or add is None or not is_op(add, "Add") or _next(add, "Where") is None:
        return None
    low = next((least for least in _producers(add) if is_op(least, "ReduceMin") and least.inputs[0] is data), None)
    if low is None or _next(low, "Add") is None or rank(data) != MASK_RANK:
        return None
    axes = {node.attributes.get_int("axis", -1), _scalar(input_at(low, 1))}
    distance = _scalar(_other(add, low.outputs[0]))
    if not axes <= {-1, MASK_RANK - 1} or distance is None or distance > HIDDEN:
        return None
    return Unit("MaskedSoftmax", "MaskedSoftmax", (low, add, choice, node), (data, mask), tuple(node.outputs))


def _producers(node: Node) -> Iterator[Node]:
    producers = (value.producer() for value in node.inputs if value is not None)
    return (producer for producer in producers if producer is not None)


PATTERNS: tuple[tuple[str, Callable[[Node], Unit | None]], ...] = (
    ("LayerNormalization", scaled_layer_normalization),
    ("RMSNormalization", rms_normalization),
    ("LayerNormalization", layer_normalization),
    ("MaskedSoftmax", masked_softmax),
    ("MatmulAdd", matmul_add),
)
"""In the order in which they are tried. Without a scale, AIMET takes the inner RMSNormalization, if it is listed."""
