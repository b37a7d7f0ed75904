"""Placement: where quantizers stand, which format they have, who shares a scale. Needs the graph only, no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from quark_onnx.core.plan import Plan, Site, Skip
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import Graph, Model, io
from quark_onnx.stages.place.dynamic import without_ranges
from quark_onnx.stages.place.exempt import shape_values, why_exempt
from quark_onnx.stages.place.groups import grouped
from quark_onnx.stages.place.idle import drop_idle
from quark_onnx.stages.place.overrides import overridden
from quark_onnx.stages.place.residual import residual
from quark_onnx.stages.place.rules import RULES, Context, Wish, with_known_ranges
from quark_onnx.stages.place.select import excluded
from quark_onnx.stages.place.storage import REMARK, fails_signed, runnable_storage, wide_enough

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
    notes = _exemptions(graph, config, known)
    context, target = Context(config, notes), config.row
    wishes: dict[str, Wish] = {}
    moving: dict[str, Wish] = {}
    absorbed: dict[str, str] = {}
    for node in graph:
        name = node.name or ""
        if name in notes or name in absorbed or (context.ops[node.op_type].kind == "clamp" and not target.fixed_point):
            continue
        row = context.ops[node.op_type]
        wish = _RULES[row.kind](node, row, context)
        if isinstance(wish, Skip):
            notes[name] = wish.reason
        elif row.kind == "same" and not wish.absorbed:
            moving[name] = wish
        else:
            wishes[name] = wish
            absorbed |= dict.fromkeys((n.name or "" for n in wish.absorbed), name)
    if not config.observes:
        wishes, moving = without_ranges(graph, wishes, notes, config), {}
    if not target.fixed_point and not target.inputs_only:
        drop_idle(model.graph, wishes, moving, notes)
    absorbed = {n.name or "": name for name, wish in wishes.items() for n in wish.absorbed}
    force = config.option("ForceQuantizeNoInputCheck") and not target.inputs_only
    _add_moving(moving, wishes, notes, force=force)
    return _plan(model, wishes, absorbed, notes, config)


def _exemptions(graph: Graph, config: QuantizationConfig, known: Collection[str]) -> dict[str, str]:
    shapes = shape_values(graph, config.row.ops)
    reasons = excluded(graph, config, known)
    notes = {}
    for node in graph:
        reason = why_exempt(node, shapes, config.row) or reasons.get(node.name or "")
        if reason is not None:
            notes[node.name or ""] = reason
    return notes


def _add_moving(moving: Mapping[str, Wish], wishes: dict[str, Wish], notes: dict[str, str], *, force: bool) -> None:
    """Operators that only move values join where a neighbour is quantized, forward and backward through chains."""
    tensors = {site.tensor for wish in wishes.values() for site in wish.sites}
    waiting = dict(moving)
    while waiting:
        joined = [n for n in waiting if force or any(s.tensor in tensors for s in waiting[n].sites)]
        if not joined:
            break
        for name in joined:
            wishes[name] = waiting.pop(name)
            tensors.update(site.tensor for site in wishes[name].sites)
    notes |= dict.fromkeys(waiting, "only moves values, and no neighbour is quantized")


def _plan(
    model: Model,
    wishes: Mapping[str, Wish],
    absorbed: Mapping[str, str],
    notes: dict[str, str],
    config: QuantizationConfig,
) -> Plan:
    sites: dict[str, Site] = {}
    for wish in wishes.values():
        for site in wish.sites:
            present = sites.get(site.tensor)
            if present is None or (present.range is None and site.range is not None):
                sites[site.tensor] = site
    nodes = {name: tuple(site.tensor for site in wish.sites) for name, wish in wishes.items()}
    nodes |= {name: nodes[owner] for name, owner in absorbed.items()}
    for node in model.graph:
        name = node.name or ""
        if name not in nodes and name not in notes:
            notes[name] = "not behind a quantized operator that could take it in"
    order = {node.name or "": i for i, node in enumerate(model.graph)}
    nodes = dict(sorted(nodes.items(), key=lambda item: order[item[0]]))
    ties = {follower: leader for wish in wishes.values() for follower, leader in wish.ties.items()}
    sites, told = overridden(model.graph, grouped(sites, ties), nodes, config)
    sites = with_known_ranges(model.graph, sites, nodes, config.row.ops)
    sites, wider = wide_enough(model.graph, sites, nodes)
    always = fails_signed(model.graph, nodes)
    stored = runnable_storage(sites, _readers(model.graph), always=always) if config.row.on_cpu else sites
    if any(stored[name].format != site.format for name, site in sites.items()):
        wider["*"] = "; ".join([REMARK, *([wider["*"]] if "*" in wider else [])])
    return Plan(io.fingerprint(model), stored, nodes, notes, remarks=told | wider)


def _readers(graph: Graph) -> Counter[str]:
    """How often each tensor is read, by nodes, control-flow bodies included, and as a model output."""
    found = Counter(value.name or "" for node in graph.all_nodes() for value in node.inputs if value is not None)
    return found + Counter(value.name or "" for value in graph.outputs)
