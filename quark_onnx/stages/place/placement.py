"""From the requests of the nodes to the sites of the plan: one node after the other, then all together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Ends, Plan, Site, Skip
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Graph, Model, Node, io
from quark_onnx.stages.place.dynamic import weight_alone, without_ranges
from quark_onnx.stages.place.excluded_nodes import excluded
from quark_onnx.stages.place.float_readers import with_floats_beside
from quark_onnx.stages.place.gate_floors import with_floors
from quark_onnx.stages.place.handed_codes import with_codes_handed
from quark_onnx.stages.place.idle_operators import CLAMP, MOVES, connected, floating, idle, without_output
from quark_onnx.stages.place.known_ranges import with_known_ranges
from quark_onnx.stages.place.masked_nodes import masked_nodes, ranges_behind
from quark_onnx.stages.place.never_quantized import AT_LOAD, enlarged_constants, shape_values, why_exempt
from quark_onnx.stages.place.operator_rules import RULES
from quark_onnx.stages.place.overrides import overridden
from quark_onnx.stages.place.residual_additions import residual
from quark_onnx.stages.place.saturating_weights import without_saturation
from quark_onnx.stages.place.shared_scales import grouped
from quark_onnx.stages.place.site_request import Context, SiteRequest
from quark_onnx.stages.place.storage_types import REMARK, unsigned_activations, wide_enough
from quark_onnx.stages.place.tables import tables
from quark_onnx.stages.place.typed_layers import NO_WEIGHT, configs_of_layers, widest_activations

_RULES = {**RULES, "residual": residual}


def place(model: Model, config: QuantizationConfig, known: Collection[str] = ()) -> Plan:
    """A plan with sites, nodes and notes; scales are still open.

    Args:
        model: prepared.
        known: names of nodes of the user's model, which options may name even if preparing has folded them away.

    Raises:
        ConfigError: the configuration names a node or operator type that does not exist.
    """
    graph = model.graph
    masked = masked_nodes(graph)
    notes = _exemptions(graph, masked, config, known)
    context, target = Context(config, notes, configs_of_layers(graph, config, known)), config.row
    requests: dict[str, SiteRequest] = {}
    moving: dict[str, SiteRequest] = {}
    absorbed: dict[str, str] = {}
    for node in graph:
        name = node.name or ""
        if name in notes or name in absorbed or (context.ops[node.op_type].kind == "clamp" and not target.fixed_point):
            continue
        row = context.ops[node.op_type]
        request = _requested(node, row, context)
        if isinstance(request, Skip):
            notes[name] = request.reason
        elif row.kind == "same" and not request.absorbed:
            moving[name] = request
        else:
            requests[name] = request
            absorbed |= dict.fromkeys((n.name or "" for n in request.absorbed), name)
    if not config.observes:
        requests, moving = without_ranges(graph, requests, notes, config), {}
    _keep_ranges(ranges_behind(graph, masked, target.ops, config.activation.bits), requests, moving)
    if target.spares_idle:
        _drop_idle(graph, requests, moving, notes, config)
    absorbed = {n.name or "": name for name, request in requests.items() for n in request.absorbed}
    force = config.option("ForceQuantizeNoInputCheck") and not target.inputs_only and not config.protection.on
    if target.spares_idle and not force:
        for name in floating(graph, _quantized(requests), moving, target.ops):
            notes[name], _ = MOVES, moving.pop(name)
    _add_moving(moving, requests, notes, force=force)
    requests |= tables(graph, requests, notes, config) if target.on_cpu else {}
    return _plan(model, requests, absorbed, notes, context)


def _requested(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """What the rule says; of a layer whose activations are to stay float, its weight alone."""
    request = _RULES[row.kind](node, row, context.of(node))
    if isinstance(request, Skip) or not context.leaves_float(node):
        return request
    reduced = weight_alone(request)
    return reduced if reduced.sites else Skip(NO_WEIGHT)


def _exemptions(
    graph: Graph, masked: Mapping[str, str], config: QuantizationConfig, known: Collection[str]
) -> dict[str, str]:
    shapes = shape_values(graph, config.row.ops)
    constants = enlarged_constants(graph)
    reasons = {node.name or "": AT_LOAD for node in graph if constants.intersection(node.outputs)}
    reasons |= {**masked, **excluded(graph, config, known)}
    notes = {}
    for node in graph:
        reason = why_exempt(node, shapes, config.row) or reasons.get(node.name or "")
        if reason is not None:
            notes[node.name or ""] = reason
    return notes


def _drop_idle(
    graph: Graph,
    requests: dict[str, SiteRequest],
    moving: Mapping[str, SiteRequest],
    notes: dict[str, str],
    config: QuantizationConfig,
) -> None:
    """Nodes and outputs that integers buy nothing go; a known range of what becomes float stays with its reader."""
    ops = config.row.ops
    reasons = idle(graph, _quantized(requests), moving, ops)
    gone = [requests.pop(name) for name in reasons if name in requests]
    _keep_ranges({site.tensor: site.range for request in gone for site in request.sites}, requests, moving)
    notes |= reasons
    for node in without_output(graph, _quantized(requests), moving, ops):
        notes |= {clamp.name or "": CLAMP for clamp in requests[node.name or ""].give_floats(node)}


def _keep_ranges(known: Mapping[str, tuple[Ends, Ends] | None], *requests: Mapping[str, SiteRequest]) -> None:
    """The known ranges of what is computed in float stay with its readers."""
    for request in (one for part in requests for one in part.values()):
        request.sites = [replace(site, range=site.range or known.get(site.tensor)) for site in request.sites]


def _quantized(requests: Mapping[str, SiteRequest]) -> dict[str, tuple[str, ...]]:
    """Quantized node → tensors that carry a quantizer for it; what it absorbed has the same."""
    nodes = {name: tuple(site.tensor for site in request.sites) for name, request in requests.items()}
    return nodes | {n.name or "": nodes[name] for name, request in requests.items() for n in request.absorbed}


def _add_moving(
    moving: Mapping[str, SiteRequest], requests: dict[str, SiteRequest], notes: dict[str, str], *, force: bool
) -> None:
    """Operators that only move values join where a neighbour is quantized, forward and backward through chains."""
    tensors = {site.tensor for request in requests.values() for site in request.sites}
    wanted = {name: [site.tensor for site in request.sites] for name, request in moving.items()}
    joined = list(moving) if force else connected(wanted, tensors)
    requests |= {name: moving[name] for name in joined}
    notes |= {name: MOVES for name in moving if name not in requests}


def _plan(
    model: Model,
    requests: Mapping[str, SiteRequest],
    absorbed: Mapping[str, str],
    notes: dict[str, str],
    context: Context,
) -> Plan:
    config, graph = context.config, model.graph
    sites: dict[str, Site] = {}
    for request in requests.values():
        for site in request.sites:
            present = sites.get(site.tensor)
            if present is None or (present.range is None and site.range is not None):
                sites[site.tensor] = site
    nodes = {name: tuple(site.tensor for site in request.sites) for name, request in requests.items()}
    nodes |= {name: nodes[owner] for name, owner in absorbed.items()}
    for node in graph:
        name = node.name or ""
        if name not in nodes and name not in notes:
            notes[name] = "not behind a quantized operator that could take it in"
    order = {node.name or "": i for i, node in enumerate(graph)}
    nodes = dict(sorted(nodes.items(), key=lambda item: order[item[0]]))
    ties = {follower: leader for request in requests.values() for follower, leader in request.ties.items()}
    sites = widest_activations(graph, grouped(sites, ties), nodes, config, context.own)
    sites, told = overridden(graph, sites, nodes, config)
    sites = with_known_ranges(graph, sites, nodes, config.row.ops)
    sites, wider = wide_enough(graph, sites, nodes)
    sites = with_floors(graph, sites)
    if config.row.spares_idle:
        sites = with_floats_beside(graph, sites, nodes, config.row.ops)
    if config.row.hands_on:
        sites = with_codes_handed(graph, sites, nodes, config.row.ops)
    if config.row.unsigned:
        stored = unsigned_activations(sites)
        if stored != sites:
            wider["*"] = "; ".join([REMARK, *([wider["*"]] if "*" in wider else [])])
        sites = stored
    if config.row.pairs:
        sites, stored_so = without_saturation(graph, sites, nodes, config.row, config.weight_pairs)
        wider |= stored_so
    return Plan(io.fingerprint(model), sites, nodes, notes, remarks=told | wider)
