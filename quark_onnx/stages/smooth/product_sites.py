"""Activations that products with constant weights read, and who reads them besides.

Found by the graph alone, so that a plan that names a tensor says where its Mul stands.
"""

from __future__ import annotations

from typing import NamedTuple

from quark_onnx.core.operators import SHAPE_ALONE
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant_tensor, input_at, is_constant, is_op, numpy_dtype, rank, shape

MOVERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
"""Operators that may stand between an activation and its products, as long as channels stay the last axis."""


class Site(NamedTuple):
    """An activation and its products.

    value     its last axis holds the channels
    channels  how many
    products  all nodes with a weight of their own that read it, moved or not
    readers   nodes that read `value` itself on behalf of these: products and movers
    others    who reads its values for something else
    """

    value: Value
    channels: int
    products: tuple[Node, ...]
    readers: tuple[Node, ...]
    others: tuple[Node, ...]

    @property
    def name(self) -> str:
        """Of the activation."""
        return self.value.name or ""

    @property
    def alone(self) -> bool:
        """Whether nobody reads it but the products."""
        return not self.others and not self.value.is_graph_output()


def has_sites(model: Model) -> bool:
    """Whether there are products with constant weights, whatever may become of them."""
    return any(find(model))


def find(model: Model) -> tuple[list[Site], dict[Node, str]]:
    """All sites in the order of the graph, and for each product that cannot be part of one the reason."""
    roots: dict[Value, None] = {}
    refused: dict[Node, str] = {}
    for node in model.graph:
        if not is_op(node, "MatMul", "Gemm") or not is_constant(input_at(node, 1)):
            continue
        if (reason := _why_not(node)) is not None:
            refused[node] = reason
            continue
        value = node.inputs[0]
        assert value is not None
        while (before := _before(value)) is not None:
            value = before
        roots[value] = None
    sites = []
    for value in roots:
        found = _site(value)
        if isinstance(found, Skip):
            refused |= dict.fromkeys(_served(value), found.reason)
        else:
            sites.append(found)
    return sites, refused


def _why_not(node: Node) -> str | None:
    """Why the weight of a product cannot take a factor per row; None: it can."""
    weight = node.inputs[1]
    assert weight is not None
    if rank(weight) != 2:
        return "its weight is no matrix"
    if numpy_dtype(weight) not in ("float32", "float64"):
        return f"its weight holds {numpy_dtype(weight)}"
    if len(weight.uses()) != 1 or weight.is_graph_output():
        return "its weight is shared"
    if is_op(node, "Gemm") and node.attributes.get_int("transA"):
        return "its input is transposed"
    return "what it reads is constant" if constant_tensor(node.inputs[0]) is not None else None


def _takes(node: Node, index: int) -> bool:
    """Whether the node is a product whose weight takes what input `index` is divided by."""
    return index == 0 and is_op(node, "MatMul", "Gemm") and is_constant(input_at(node, 1)) and _why_not(node) is None


def _moves(node: Node | None) -> bool:
    """Whether the node moves values and leaves channels where they are, on the last axis."""
    if node is None or not is_op(node, *MOVERS):
        return False
    before, after = shape(node.inputs[0]), shape(node.outputs[0])
    if not before or not after or before[-1] is None or before[-1] != after[-1] or before[-1] < 2:
        return is_op(node, "Identity")
    return not is_op(node, "Transpose") or node.attributes.get_ints("perm", (0,))[-1] == len(before) - 1


def _wholly(value: Value) -> bool:
    """Whether nobody reads the value but products, moved or not."""
    if value.is_graph_output() or not value.uses():
        return False
    return all(_serves(use.node, use.idx) or is_op(use.node, *SHAPE_ALONE) for use in value.uses())


def _serves(node: Node, index: int) -> bool:
    return _takes(node, index) or (index == 0 and _moves(node) and _wholly(node.outputs[0]))


def _before(value: Value) -> Value | None:
    """What a mover makes the value of, where all that it makes of it goes into products."""
    node = value.producer()
    if node is None or not _moves(node) or not _wholly(value):
        return None
    return node.inputs[0] if constant_tensor(node.inputs[0]) is None else None


def _site(value: Value) -> Site | Skip:
    graph = _graph_of(value)
    if any(use.node.graph is not graph for use in value.uses()):
        return Skip(f"{value.name!r} is read inside a control-flow body")
    reads = [use for use in value.uses() if not is_op(use.node, *SHAPE_ALONE)]
    uses = sorted(reads, key=lambda use: (use.node.name or "", use.idx))
    readers = tuple(dict.fromkeys(use.node for use in uses if _serves(use.node, use.idx)))
    others = tuple(dict.fromkeys(use.node for use in uses if not _serves(use.node, use.idx)))
    products = tuple(product for reader in readers for product in _products(reader))
    sizes = {_rows(product) for product in products}
    if len(sizes) != 1 or set(readers) & set(others):
        return Skip("it is read in different ways")
    return Site(value, sizes.pop(), products, readers, others)


def _graph_of(value: Value) -> object:
    producer = value.producer()
    return value.graph if producer is None else producer.graph


def _products(reader: Node) -> list[Node]:
    if not _moves(reader):
        return [reader]
    nodes = [node for node in reader.outputs[0].consumers() if not is_op(node, *SHAPE_ALONE)]
    return [product for node in nodes for product in _products(node)]


def _served(value: Value) -> list[Node]:
    return [product for use in value.uses() if _serves(use.node, use.idx) for product in _products(use.node)]


def _rows(product: Node) -> int:
    """Rows of the weight: the channels that the product reads."""
    dims = shape(product.inputs[1]) or ()
    return dims[1 if transposed(product) else 0] or 0


def transposed(product: Node) -> bool:
    """Whether the weight is stored as (outputs, inputs)."""
    return is_op(product, "Gemm") and bool(product.attributes.get_int("transB"))


def has_positions(site: Site) -> bool:
    """Whether a sample has several rows: tokens, patches. A classifier behind a pool reads one."""
    node, ndim = site.value.producer(), rank(site.value)
    if ndim is None or ndim != 2:
        return ndim is not None and ndim > 2
    before = None if node is None or not is_op(node, "Reshape") else shape(node.inputs[0])
    if not before or len(before) < 3:
        return False
    merged = 1
    for count, dim in enumerate(reversed(before)):
        if merged == site.channels:
            return len(before) - count > 1
        merged *= dim or site.channels  # the one dim that is not known fills up
    return False
