"""Codes in another type than the smallest that holds them, where onnxruntime needs it: the same real values.

Signed activations in unsigned types. On x64 onnxruntime runs int8 activations by rewriting them to uint8 when it loads
the model, but only those that are computed and read once. Around a tensor with two readers (every residual block has
one), or a constant that is added or looked up, nothing fuses, and an unfused layer is slower than the float one; where
int8 reaches a kernel with int8 weights, reference code runs, 35 times slower. From opset 21 on it builds an invalid
graph of int8 activations around a MatMul with an Add, and for weights stored as uint8 it has no kernel beside int8
activations. int8 with zero point z and uint8 with z + 128 are the same grid of real values, so activations of CPU
targets are stored as uint8 throughout.

Narrow grids in wider types. onnxruntime 1.31 takes activations of 2 and 4 bits, 2-bit weights beside 8-bit activations
or of products, and 8-bit weights in blocks of a MatMul for what its integer kernels know, versions up to 1.24 those of
a Gemm, too; then it refuses the model, fails on every input, or computes wrong numbers. With activations of 8 bits, and
weights of 4 and 16, it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.view import is_op

REMARK = "int8 activations are stored as uint8, zero point + 128: the same values, and more layers fuse"
WIDE_WEIGHT = "stored with {} bits: onnxruntime's kernels fail on {}"
WIDE_ACTIVATIONS = (
    "activations of 2 to 4 bits are stored with 8 and clipped: onnxruntime's kernels fail on narrow types"
)


def unsigned_activations(sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites, with activations and constants of int8 as uint8."""
    return {
        name: replace(site, format=site.format.unsigned)
        if site.role in ("activation", "constant") and site.format.dtype == "int8"
        else site
        for name, site in sites.items()
    }


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

    if format.storage_bits < 8 and format.block is None and any(is_op(node, "Gather") for node in readers):
        return 8, "tables of less than 8 bits"
    if format.storage_bits == 2 and any(is_op(node, "MatMul", "Gemm") or beside_bytes(node) for node in readers):
        return 4, "2-bit weights"
    blocks = format.block is not None and format.storage_bits == 8
    if blocks and any(beside_bytes(node) for node in readers):
        return 16, "8-bit weights in blocks"
    return None, ""
