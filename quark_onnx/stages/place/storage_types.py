"""Codes in another type than the smallest that holds them, where onnxruntime needs it: the same real values.

Signed activations in unsigned types. On x64 onnxruntime runs int8 activations by rewriting them to uint8 when it loads
the model, but only those that are computed and read once. Around a tensor with two readers (every residual block has
one), or a constant that is added or looked up, nothing fuses, and an unfused layer is slower than the float one. int8
with zero point z and uint8 with z + 128 are the same grid of real values, so such a model is stored as uint8
throughout; mixing the two would keep layers from fusing on other processors.

From opset 21 on it builds an invalid graph of int8 activations around a MatMul with an Add, so these are stored as
uint8 as well.

Narrow grids in wider types. onnxruntime 1.31 takes activations of 2 and 4 bits, 2-bit weights beside 8-bit activations
or of products, and 8-bit weights in blocks of a MatMul for what its integer kernels know; then it refuses the model,
fails on every input, or computes wrong numbers. With activations of 8 bits, and weights of 4 and 16, it does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.view import is_op, rank, sole_reader

REMARK = "int8 activations are stored as uint8, zero point + 128: the same values, and more layers fuse"
WIDE_WEIGHT = "stored with {} bits: onnxruntime's kernels fail on {}"
WIDE_ACTIVATIONS = (
    "activations of 2 to 4 bits are stored with 8 and clipped: onnxruntime's kernels fail on narrow types"
)


def runnable_storage(sites: Mapping[str, Site], readers: Counter[str], *, always: bool = False) -> dict[str, Site]:
    """The sites, activations unsigned if any int8 one is read more than once, or is a constant, or `always`.

    Grids that are narrower than their type do not count: nothing fuses around them in any case.

    Args:
        readers: by tensor, how often it is read; twice by one node, as in x · x, counts twice.
    """
    activations = {name for name, site in sites.items() if site.role in ("activation", "constant")}
    formats = {name: sites[name].format for name in activations}
    signed = [name for name, f in formats.items() if f.dtype == "int8" and (always or not f.simulated)]
    if not any(always or readers[name] > 1 or sites[name].role == "constant" for name in signed):
        return dict(sites)
    return {
        name: replace(site, format=site.format.unsigned) if name in activations else site
        for name, site in sites.items()
    }


def fails_signed(graph: Graph, nodes: Collection[str]) -> bool:
    """Whether onnxruntime fails on int8 activations: it makes a Gemm between two Reshapes of a MatMul and its Add."""
    return graph.opset_imports.get("", 0) >= 21 and any(
        is_op(node, "MatMul") and (rank(node.outputs[0]) or 0) > 2 and is_op(sole_reader(node.outputs[0]), "Add")
        for node in graph
        if node.name in nodes
    )


def wide_enough(
    graph: Graph, sites: Mapping[str, Site], nodes: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, Site], dict[str, str]]:
    """The sites in types that onnxruntime computes right with, and remarks on what changed.

    Args:
        nodes: quantized node → its tensors, as in the plan.
    """
    changed, remarks = dict(sites), {}
    for name, site in sites.items():
        stored, remark = None, ("", "")
        if site.role in ("activation", "constant") and site.format.storage_bits < 8:
            stored, remark = 8, ("*", WIDE_ACTIVATIONS)
        elif site.role == "weight":
            readers = [n for n in graph.initializers[name].consumers() if name in nodes.get(n.name or "", ())]
            stored, why = _stored_weight(site.format, readers, sites, nodes)
            remark = (name, WIDE_WEIGHT.format(stored, why))
        if stored is not None:
            changed[name] = replace(site, format=replace(site.format, stored=stored))
            remarks[remark[0]] = remark[1]
    return changed, remarks


def _stored_weight(
    format: Format, readers: Sequence[Node], sites: Mapping[str, Site], nodes: Mapping[str, tuple[str, ...]]
) -> tuple[int | None, str]:
    """Bits to store a weight with, and what would fail otherwise; None where nothing does."""

    def beside_bytes(node: Node) -> bool:
        others = (sites[tensor] for tensor in nodes[node.name or ""] if tensor in sites)
        return any(s.role in ("activation", "dynamic") and s.format.storage_bits <= 8 for s in others)

    if format.storage_bits == 2 and any(is_op(node, "MatMul", "Gemm") or beside_bytes(node) for node in readers):
        return 4, "2-bit weights"
    blocks = format.block is not None and format.storage_bits == 8
    if blocks and any(is_op(node, "MatMul") and beside_bytes(node) for node in readers):
        return 16, "8-bit weights in blocks"
    return None, ""
