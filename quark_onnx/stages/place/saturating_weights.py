"""Weights that a kernel of x64 without VNNI would saturate on: with safe pairs, as bytes with zero point 128, or of
7 bits.

There u8 × s8 is exact only while two neighbouring products fit into 16 bits (`numerics.weight_pairs`); u8 × u8 always
is, at two thirds of the speed of onnxruntime. OpenVINO computes in float with it: there one bit less is the way out.
Depthwise convolutions have code of their own, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quark_onnx.core.operators import CPU
from quark_onnx.core.plan import Site, Skip
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.layers.matrix_geometry import ConvGeometry, MatrixGeometry, geometry
from quark_onnx.engine.runtimes.openvino.pairs import Order, orders
from quark_onnx.graph import Graph, Node
from quark_onnx.graph.view import input_at, is_op, shape
from quark_onnx.stages.place.parameter_formats import weight_axis

BYTES = "stored as uint8 with zero point 128, which no processor saturates on: {}"
SEVEN = "its codes have 7 bits, which no processor saturates on: {}"
ASKED = "weight_pairs='uint8'"
NO_ZERO = "its zero point is not 0"
NO_ROWS = "it is no matrix or kernel whose neighbours are known"
TWO_WAYS = "layers read it in different directions"
ORDERS = "processors differ in which neighbours they add"


def without_saturation(
    graph: Graph, sites: Mapping[str, Site], nodes: Mapping[str, tuple[str, ...]], target: Target, how: str
) -> tuple[dict[str, Site], dict[str, str]]:
    """The sites with formats that cannot saturate, and remarks on weights that are bytes, or have a bit less, for it.

    Args:
        nodes: quantized node → its tensors, as in the plan.
        how: `QuantizationConfig.weight_pairs`.
    """
    changed, remarks = dict(sites), {}
    for name, site in sites.items():
        if how == "off" or site.role != "weight" or (site.format.bits, site.format.dtype) != (8, "int8"):
            continue
        quantized = [n for n in graph.initializers[name].consumers() if name in nodes.get(n.name or "", ())]
        readers = [n for n in quantized if target.adds_pairs(n.op_type) and _reads(n, name, sites)]
        if not readers:
            continue
        reason = ASKED if how == "uint8" else _why_not_safe(site, readers, target)
        if reason is None:
            changed[name] = replace(site, format=replace(site.format, safe_pairs=target.pairs))
        elif target.takes_bytes:
            changed[name] = replace(site, format=site.format.unsigned)
            remarks[name] = BYTES.format(reason)
        elif reason != NO_ZERO:  # which is another reason to compute in float
            changed[name] = replace(site, format=replace(site.format, bits=site.format.bits - 1))
            remarks[name] = SEVEN.format(reason)
    return changed, remarks


def _reads(node: Node, weight: str, sites: Mapping[str, Site]) -> bool:
    """Whether the node multiplies bytes with this weight, by a kernel that adds neighbours."""
    data, other = node.inputs[:2]
    site = sites.get(data.name or "") if data is not None else None
    if other is None or other.name != weight or site is None or site.format.storage_bits != 8:
        return False
    format = sites[weight].format
    # scales that change along a sum, the kernel cannot take
    by_row = format.block is None and format.axis in (None, weight_axis(node, CPU[node.op_type]))
    return by_row and not _depthwise(node)


def _depthwise(node: Node) -> bool:
    """A Conv with one channel in and one out per group."""
    dims = shape(input_at(node, 1)) or ()
    return is_op(node, "Conv") and dims[1] == 1 and dims[0] == node.attributes.get_int("group", 1)


def _why_not_safe(site: Site, readers: list[Node], target: Target) -> str | None:
    """Why the weight cannot have safe pairs; None: it can."""
    if not site.format.symmetric or site.format.one_sided:
        return NO_ZERO
    found = [_geometry(node) for node in readers]
    if any(isinstance(one, Skip) for one in found):
        return NO_ROWS
    if len({one.layout[1] for one in found if not isinstance(one, Skip)}) > 1:
        return TWO_WAYS
    return ORDERS if target.pairs == "tap" and any(_orders(node) != {"tap"} for node in readers) else None


def _orders(node: Node) -> frozenset[Order]:
    return orders(node, [size or 0 for size in shape(input_at(node, 1)) or ()])


def _geometry(node: Node) -> MatrixGeometry | ConvGeometry | Skip:
    data, weight = node.inputs[:2]
    assert data is not None and weight is not None
    return geometry(node, weight, data, 1)
