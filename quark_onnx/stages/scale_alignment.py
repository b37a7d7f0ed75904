"""What is needed of scales that were chosen one by one: equal ones around some operators, near ones around others.

`align_scales` gives the tensors around a Concat or an average pool one scale, that of the union of their ranges, where
placement could not tie them because one of them shares its scale with another tensor already.
`align_positions` moves power-of-two scales apart or together until integer hardware can shift from one to the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import constant, is_op
from quark_onnx.numerics.quantizer import ends, qparams
from quark_onnx.numerics.ranges import power_of_two_shifts as shifts

ROUNDS = 5
"""Times that all operators are looked at; most models are settled after one."""

MOVED = "position {0} → {1}, so that the shifts around it have few enough bits for the NPU"
APART = "the shifts of {0!r} have too many bits for the NPU, whatever its positions"
WIDENED = "has the scale of {0!r}: all around {1} share one"
UNEQUAL = "keeps its own scale at {0}, where all should share one: {1}"


def align(model: Model, plan: Plan, config: QuantizationConfig) -> Plan:
    """The plan with the scales that the target, or the user, wants equal or near; unchanged where any will do."""
    target = config.row
    if op_types := target.aligned(config.option("AlignConcat"), config.option("AlignPool")):
        plan = align_scales(model, plan, op_types, target)
    return align_positions(model, plan) if target.shifts else plan


def align_scales(model: Model, plan: Plan, op_types: Collection[str], target: Target) -> Plan:
    """Inputs and outputs of these operators become one group, whose range holds those of all.

    Tensors of another type stay as they are, and those that the target runs with one scale only; a remark says so.
    """
    fixed = {row.wide_range for row in target.ops.values()} - {None}
    sites, scales, remarks = dict(plan.sites), dict(plan.qparams), dict(plan.remarks)
    for node in model.graph:
        if (node.name or "") not in plan.nodes or not is_op(node, *op_types):
            continue
        around = _ends(node, plan)
        own = {group for group in (sites[tensor].group for tensor in around) if _leader(sites, group).range in fixed}
        free = [tensor for tensor in around if sites[tensor].group not in own]
        lead = sites[free[-1]] if free else None
        for tensor in around:
            site = sites[tensor]  # looked up anew: the tensor in front of it may have moved both into the group
            if lead is None or site.group in own:
                remarks[tensor] = UNEQUAL.format(node.op_type, "its operator has no other scale")
            elif site.format != lead.format:
                remarks[tensor] = UNEQUAL.format(node.op_type, f"it is {site.format}")
            elif site.group != lead.group:
                _merge(sites, scales, site.group, lead.group)
                remarks[tensor] = WIDENED.format(lead.group, node.op_type)
    return replace(plan, sites=sites, qparams=scales, remarks=remarks)


def _ends(node: Node, plan: Plan) -> list[str]:
    """The quantized inputs of an operator, and what is behind it and what it takes in."""
    read = [value.name or "" for value in node.inputs if value is not None]
    tensors = dict.fromkeys(plan.nodes[node.name or ""])
    return [t for t in tensors if t in read or plan.sites[t].role == "activation"]


def _leader(sites: Mapping[str, Site], group: str) -> Site:
    """The site whose range the group has; where that tensor stays float, another one of the group."""
    return sites[group] if group in sites else next(site for site in sites.values() if site.group == group)


def _merge(sites: dict[str, Site], scales: dict[str, QParams], group: str, lead: str) -> None:
    """`group` becomes part of the group `lead`."""
    format = _leader(sites, lead).format
    (low, high), (lower, higher) = ends(scales[lead], format), ends(scales.pop(group), format)
    scales[lead] = qparams(np.minimum(low, lower), np.maximum(high, higher), format)
    for tensor, site in sites.items():
        if site.group == group:
            sites[tensor] = replace(site, group=lead)


def align_positions(model: Model, plan: Plan) -> Plan:
    """The plan with scales raised until every layer, sum and product shifts by as many bits as the NPU can.

    Operators around a scale that is no power of two, or several, are left alone.
    """
    found = {group: shifts.position(q.scale) for group, q in plan.qparams.items()}
    at = {group: p for group, p in found.items() if p is not None}
    at |= dict.fromkeys(_zeros(model, plan), shifts.FREE)
    given = dict(at)
    nodes = [node for node in model.graph if (node.name or "") in plan.nodes]
    for _ in range(ROUNDS):
        before = dict(at)
        for node in nodes:
            _lower(at, _wanted(node, plan, at))
        if at == before:
            break
    moved = {group: p for group, p in at.items() if p != given[group]}
    remarks = {g: MOVED.format(found[g], p) for g, p in moved.items() if p != found[g] and g in plan.sites}
    for node in nodes:
        if any(at[group] > p for group, p in _wanted(node, plan, at)):
            remarks[plan.nodes[node.name or ""][-1]] = APART.format(node.name)
    raised = {
        g: QParams(np.asarray(np.ldexp(1.0, -p), np.float32), plan.qparams[g].zero_point) for g, p in moved.items()
    }
    return replace(plan, qparams={**plan.qparams, **raised}, remarks={**plan.remarks, **remarks})


def _zeros(model: Model, plan: Plan) -> Iterator[str]:
    """Weights and biases that are 0 throughout: every scale is exact for them."""
    for tensor, site in plan.sites.items():
        array = constant(model.graph.initializers[tensor]) if site.role in ("weight", "bias") else None
        if array is not None and not array.any() and site.group in plan.qparams:
            yield site.group


def _lower(at: dict[str, int], wanted: list[tuple[str, int]]) -> None:
    for group, p in wanted:
        at[group] = min(at[group], p)


def _wanted(node: Node, plan: Plan, at: Mapping[str, int]) -> list[tuple[str, int]]:
    """The highest position that the groups around a node may have, given what the others have."""
    read = [value.name or "" for value in node.inputs if value is not None]
    inputs = [plan.sites[tensor].group for tensor in read if tensor in plan.sites]
    output = _output(node, plan)
    if output is None or len(inputs) < len(read[:2]) or not {output, *inputs} <= at.keys():
        return []
    places = [at[group] for group in inputs]
    if is_op(node, "Conv", "ConvTranspose", "Gemm"):
        bias = places[2] if len(places) > 2 else None
        weight, end, bias = shifts.layer(places[0], places[1], at[output], bias)
        return [(inputs[1], weight), (output, end), *([] if bias is None else [(inputs[2], bias)])]
    if is_op(node, "Add", "Sub"):
        terms, end = shifts.added(places, at[output])
        return [*zip(inputs, terms, strict=True), (output, end)]
    if is_op(node, "Mul"):
        most = shifts.SWISH_DOWN if _is_swish(node) else shifts.MUL_DOWN
        factors, end = shifts.multiplied(places, at[output], most)
        return [*zip(inputs, factors, strict=True), (output, end)]
    return [(inputs[0], shifts.SIGMOID_IN)] if is_op(node, "HardSigmoid") else []


def _output(node: Node, plan: Plan) -> str | None:
    """The group of what a node writes, behind the operators that it takes in."""
    read = {value.name for value in node.inputs if value is not None}
    tensors = plan.nodes[node.name or ""]
    written = [t for t in tensors if t not in read and plan.sites[t].role == "activation"]
    return plan.sites[written[-1]].group if written else None


def _is_swish(node: Node) -> bool:
    """x · sigmoid(x)"""
    return any(
        is_op(gate := value.producer(), "Sigmoid", "HardSigmoid") and gate is not None and gate.inputs[0] in node.inputs
        for value in node.inputs
        if value is not None
    )
