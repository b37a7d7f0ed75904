"""Placement for float16: scales that float16 holds, and which nodes a conversion reaches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Model, Node, io
from quark_onnx.graph.convertible import losses, why_not
from quark_onnx.graph.view import is_op
from quark_onnx.stages.place.excluded_nodes import excluded
from quark_onnx.stages.place.never_quantized import shape_values

BIAS = Format(16, signed=True, symmetric=True, scale="half", stored=32)
"""int32 codes at a float16 scale of their own."""


def half_scales(plan: Plan, model: Model, wide: Collection[str], target: Target) -> Plan:
    """The plan with float16 scales wherever the model will be float16. Powers of two stay such.

    An int32 bias has scale sx·sw, which is no float16 number in general: it becomes float. Not so where onnxruntime's
    CPU provider runs the model: it turns the float bias of a quantized layer into int32 when it loads the model, with
    sx·sw rounded to float16, zero or a few bits for small scales, and the layer is lost (version 1.31). A bias with a
    scale of its own it leaves alone. Layers that compute in float32 become integer kernels, which take the scale of the
    bias for sx·sw whatever it is.

    Args:
        wide: nodes that compute in float32; groups between these alone stay as they are.
    """
    around: dict[str, set[str]] = defaultdict(set)
    for node in model.graph.all_nodes():
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                around[value.name or ""].add(node.name or "")
    half = {site.group for tensor, site in plan.sites.items() if around[tensor] - set(wide)}
    products = {tensor for tensor, site in plan.sites.items() if site.role == "bias" and site.format.bits == 32}
    products = {t for t in products if half & {plan.sites[factor].group for factor in plan.sites[t].factors}}
    products = {t for t in products if around[t] - set(wide)}
    dropped = frozenset() if target.on_cpu else products
    sites = {tensor: _in_half(site, half) for tensor, site in plan.sites.items()}
    sites |= {tensor: replace(sites[tensor], format=BIAS) for tensor in products}
    sites = {tensor: site for tensor, site in sites.items() if tensor not in dropped}
    nodes = {name: tuple(t for t in tensors if t not in dropped) for name, tensors in plan.nodes.items()}
    return replace(plan, sites=sites, nodes=nodes)


def needs_float(node: Node, target: Target) -> bool:
    """Whether a node has to stay float32 in a float16 model that onnxruntime's CPU provider runs."""
    return target.on_cpu and is_op(node, *target.ops) and target.ops[node.op_type].needs_float


def _in_half(site: Site, half: Collection[str]) -> Site:
    if site.group not in half or site.format.scale != "float":
        return site
    return replace(site, format=replace(site.format, scale="half"))


def place_conversion(model: Model, config: QuantizationConfig, known: Collection[str] = ()) -> Plan:
    """The plan of a conversion to float16 or bfloat16: the nodes that compute in it, and notes on all; no sites.

    Args:
        model: prepared.
        known: as in `place`.

    Raises:
        ConfigError: the configuration names a node or operator type that does not exist.
    """
    kind = config.conversion or ""
    shapes = shape_values(model.graph, config.row.ops)
    sizes = {n.name or "": "computes shapes or indices, not data" for n in model.graph if shapes & set(n.outputs)}
    notes = why_not(model) | sizes | excluded(model.graph, config, known)
    nodes: dict[str, tuple[str, ...]] = {n.name or "": () for n in model.graph if (n.name or "") not in notes}
    notes |= dict.fromkeys(nodes, f"computed in {kind}")
    return Plan(io.fingerprint(model), {}, nodes, notes, remarks=losses(model, nodes, kind))
