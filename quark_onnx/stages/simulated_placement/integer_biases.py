"""Int32 biases for a simulated placement, whose biases are float: what integer kernels add."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, Site
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.stages.simulated_placement.aimet_operators import GRID_PRESERVING, NEVER_BEHIND

INT32 = Format(32, signed=True, symmetric=True)


def with_int32_biases(model: Model, plan: Plan) -> Plan:
    """The plan with an int32 bias for every Conv, ConvTranspose and Gemm where that changes nothing else.

    Not where the bias is quantized already, is read by others too, or does not fit into int32 at the product of the
    scales of input and weight: it stays float there.

    Args:
        plan: complete, of `simulated_sites`.
    """
    sites, nodes = dict(plan.sites), dict(plan.nodes)
    for node in model.graph:
        if is_op(node, "Conv", "ConvTranspose", "Gemm") and (site := _site(node, plan)) is not None:
            sites[site.tensor] = site
            nodes[node.name or ""] = (*nodes[node.name or ""], site.tensor)
    return replace(plan, sites=sites, nodes=nodes)


def _site(node: Node, plan: Plan) -> Site | None:
    value, data, weight = (input_at(node, i) for i in (2, 0, 1))
    array, kernel = constant(value), constant(weight)
    if value is None or weight is None or array is None or kernel is None or array.ndim != 1:
        return None
    if (value.name or "") in plan.sites or len(value.uses()) > 1 or value.is_graph_output() or _scaled(node):
        return None
    x, w = source(data, plan.sites), plan.sites.get(weight.name or "")
    if x is None or w is None or w.role != "weight" or w.format.block or plan.sites[x].format.axis is not None:
        return None
    sx, sw = plan.qparams_of(x).scale, plan.qparams_of(w.tensor).scale
    groups = 1 if w.format.axis is None else max(1, array.size // kernel.shape[w.format.axis])
    if not np.isfinite(array).all() or integer_bias.raised_scale(array, sx, sw, groups) is not None:
        return None
    name, axis = value.name or "", None if w.format.axis is None else 0
    return Site(name, "bias", replace(INT32, axis=axis), name, "int32 bias", (x, w.tensor))


def _scaled(node: Node) -> bool:
    """Whether a Gemm multiplies its bias, or its product."""
    return is_op(node, "Gemm") and any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta"))


def source(value: Value | None, quantized: Collection[str]) -> str | None:
    """The quantized tensor whose values a tensor holds, moved about perhaps; None: it is not quantized."""
    while value is not None:
        if (value.name or "") in quantized:
            return value.name
        producer = value.producer()
        if producer is None or not is_op(producer, *NEVER_BEHIND, *GRID_PRESERVING):
            return None
        value = producer.inputs[0]
    return None
