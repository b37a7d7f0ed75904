"""Encodings → plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from quark_onnx.core.errors import PlanError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, QParams, Role, Site
from quark_onnx.encodings.encoding_values import Encoding, EncodingFile, Loss
from quark_onnx.encodings.plan_to_encodings import product_scale
from quark_onnx.encodings.scale_layout import Axes, Shapes, grid

Grids = dict[str, tuple[Format, QParams]]

NO_AXES: Axes = {}
TOLERANCE = 1e-6
"""Largest relative deviation of an int32 bias scale from the product: AIMET multiplies float64 numbers."""


@dataclass(frozen=True, eq=False)
class Merged:
    """A plan with the grids of a file, and where they did not meet.

    changed  tensor → format before and after, where it is another one
    missing  tensors that the plan quantizes and the file does not name: they keep the plan's grid
    foreign  tensors that the file names and the plan does not quantize: they stay float
    losses   what the file says and the plan cannot have, or had and has no more
    """

    plan: Plan
    changed: Mapping[str, str]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]
    losses: tuple[Loss, ...]


def into_plan(plan: Plan, file: EncodingFile, shapes: Shapes, axes: Axes = NO_AXES, *, strict: bool = False) -> Merged:
    """The plan with the grids of a file; what it does not say (axis, type, symmetry, kind of scale) stays as planned.

    Tensors that shared a grid part where the file gives them different ones; those that it does not name go with their
    group. An int32 bias has the product of scales whatever the file says; integers, tuned or with safe pairs,
    whose grid changes are dropped.

    Args:
        shapes: of the initializers that have a site.
        axes: of weights whose scales have an axis that neither file nor plan knows.
        strict: nothing may be changed, missing, foreign or lost, other than scales and zero points.

    Raises:
        PlanError: a tensor's scales do not fit its shape, or `strict` and something did not meet.
    """
    everything, typed = file.all, file.version == "2.0.0"
    found: Grids = {}
    for tensor, site in plan.sites.items():
        if has_grid(site) and tensor in everything and not everything[tensor].is_float:
            old = plan.qparams_of(tensor) if site.group in plan.qparams else None
            shape, pair = shapes.get(tensor), axes.get(tensor)
            found[tensor] = grid(everything[tensor], site.format, typed=typed, old=old, shape=shape, axes=pair)
    grids = found | _followers(plan, found)
    moved = {t: g for t, g in grids.items() if not _stays(plan, t, *g)}
    merged = _with_biases(_with_grids(plan, grids, moved))
    changed = {t: _change(was, merged.sites[t].format) for t in moved if (was := plan.sites[t].format) != grids[t][0]}
    missing = tuple(t for t, site in plan.sites.items() if has_grid(site) and t not in everything and t not in grids)
    foreign = tuple(sorted(everything.keys() - plan.sites.keys()))
    losses = _losses(plan, merged, everything, moved.keys(), shapes)
    if strict:
        _insist(changed, missing, foreign, losses)
    return Merged(merged, changed, missing, foreign, losses)


def has_grid(site: Site) -> bool:
    """Whether the plan holds scales of its own for it."""
    return site.role != "dynamic" and not (site.role == "bias" and site.format.bits == 32)


def _insist(
    changed: Mapping[str, str], missing: tuple[str, ...], foreign: tuple[str, ...], losses: tuple[Loss, ...]
) -> None:
    found = [Loss(f"another format ({change})", (tensor,)) for tensor, change in changed.items()]
    found += [Loss("no entry in the file", missing)] if missing else []
    found += [Loss("no quantizer in the plan", foreign)] if foreign else []
    found += losses
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise PlanError(f"file and plan differ: {'; '.join(map(str, found[:3]))}{more}; load it with strict=False")


def _change(before: Format, after: Format) -> str:
    """What is another; formats that read alike differ in a detail."""
    pairs = [(f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(Format)]
    details = ", ".join(f"{name}: {a} → {b}" for name, a, b in pairs if a != b)
    return f"{before} → {after}" if str(before) != str(after) else details


def _stays(plan: Plan, tensor: str, format: Format, q: QParams) -> bool:
    site = plan.sites[tensor]
    return format == site.format and site.group in plan.qparams and q.same(plan.qparams_of(tensor))


def _heads(plan: Plan, found: Grids) -> dict[str, str]:
    """Group → the tensor whose grid counts: the one that gave its name, or the first that the file names."""
    heads: dict[str, str] = {}
    for tensor in found:
        group = plan.sites[tensor].group
        if tensor == group or group not in heads:
            heads[group] = tensor
    return heads


def _followers(plan: Plan, found: Grids) -> Grids:
    """Grids of tensors that the file does not name, but another one of their group, with the same format."""
    heads = _heads(plan, found)
    return {
        tensor: found[heads[site.group]]
        for tensor, site in plan.sites.items()
        if tensor not in found
        and has_grid(site)
        and site.group in heads
        and site.format == plan.sites[heads[site.group]].format
    }


def _with_grids(plan: Plan, grids: Grids, moved: Grids) -> Plan:
    """The plan with these grids; a tensor whose grid is not that of its group's head gets a group of its own."""
    heads = _heads(plan, grids)
    sites, qparams = dict(plan.sites), dict(plan.qparams)
    for tensor in moved:
        sites[tensor] = replace(sites[tensor], format=grids[tensor][0])
    for group, head in heads.items():
        if head in moved:
            qparams[group] = grids[head][1]
    taken = {site.group for site in sites.values()}
    for tensor, site in plan.sites.items():
        head_moved = has_grid(site) and heads.get(site.group) in moved
        q = grids[tensor][1] if tensor in moved else plan.qparams.get(site.group) if head_moved else None
        if q is not None and not q.same(qparams[site.group]):
            name = tensor
            while name in taken:
                name += "'"
            taken.add(name)
            sites[tensor], qparams[name] = replace(sites[tensor], group=name), q
    rounded, codes = ({t: c for t, c in kept.items() if t not in moved} for kept in (plan.rounded, plan.codes))
    return replace(plan, sites=sites, qparams=qparams, rounded=rounded, codes=codes)


def _with_biases(plan: Plan) -> Plan:
    """Int32 biases have a scale per channel where the weight has; blocks have none, so that their bias is float."""
    weights = {
        t: plan.sites[s.factors[1]].format for t, s in plan.sites.items() if s.role == "bias" and not has_grid(s)
    }
    sites = {
        t: s if t not in weights else replace(s, format=replace(s.format, axis=None if weights[t].axis is None else 0))
        for t, s in plan.sites.items()
        if t not in weights or weights[t].block is None
    }
    nodes = {node: tuple(t for t in tensors if t in sites) for node, tensors in plan.nodes.items()}
    return replace(plan, sites=sites, nodes=nodes)


def _losses(
    plan: Plan, merged: Plan, everything: Mapping[str, Encoding], moved: Collection[str], shapes: Shapes
) -> tuple[Loss, ...]:
    both = [(site, everything[tensor]) for tensor, site in plan.sites.items() if tensor in everything]
    gone = [tensor for tensor in plan.sites if tensor not in merged.sites]
    said = {
        "int32 bias of a weight in blocks, which is left float": gone,
        "float16, which a plan does not have: the planned grid stays": [s.tensor for s, e in both if e.is_float],
        "quantized at run time: the file's grid is not used": [s.tensor for s, e in both if s.role == "dynamic"],
        "int32 bias: its scale stays the product of those of input and weight, the file has another": [
            s.tensor
            for s, e in both
            if s.tensor in merged.sites
            and not (has_grid(s) or s.role == "dynamic" or e.is_float)
            and not _is_product(e, merged, s, shapes)
        ],
        "tuned integers of another grid: rounded to nearest instead": [t for t in plan.codes if t in moved],
        "integers with safe pairs, of another grid: rounded to nearest instead, which may saturate without VNNI": [
            t for t in plan.rounded if t in moved and t not in plan.codes
        ],
    }
    return tuple(Loss(what, tuple(tensors)) for what, tensors in said.items() if tensors)


def _is_product(encoding: Encoding, plan: Plan, site: Site, shapes: Shapes) -> bool:
    if any(plan.sites[factor].group not in plan.qparams for factor in site.factors):
        return True  # not chosen yet
    scale = product_scale(plan, site, shapes)
    fits = encoding.scale.size == scale.size and not np.any(encoding.offset + (1 << 31))
    return fits and bool(np.allclose(encoding.scale.reshape(-1), scale.reshape(-1), rtol=TOLERANCE, atol=0))


def to_sites(
    file: EncodingFile, shapes: Shapes, axes: Axes = NO_AXES
) -> tuple[dict[str, Site], dict[str, QParams], tuple[Loss, ...]]:
    """Sites and grids of a file alone, each tensor in a group of its own, and what has no site: int32 biases (a plan
    has them by the layer's input and weight), and float16.

    Args:
        shapes: of the model's initializers; parameters with a shape are weights, activations with one are constants.
        axes: of weights whose scales have an axis that the file does not say.

    Raises:
        PlanError: an axis is missing, or a tensor's scales do not fit its shape.
    """
    typed, sites, qparams = file.version == "2.0.0", {}, {}
    for tensor, encoding in file.all.items():
        if encoding.is_float or encoding.bits == 32:
            continue
        base = Format(encoding.bits, encoding.signed, encoding.signed if typed else encoding.symmetric)
        shape, pair = shapes.get(tensor), axes.get(tensor)
        format, qparams[tensor] = grid(encoding, base, typed=typed, shape=shape, axes=pair)
        role: Role = "weight" if tensor in file.parameters else "constant" if tensor in shapes else "activation"
        sites[tensor] = Site(tensor, role, format, tensor, "encodings")
    said = {
        "float16, which a plan does not have": [t for t, e in file.all.items() if e.is_float],
        "int32 biases, which a plan has by input and weight of their layer": [
            t for t, e in file.all.items() if e.bits == 32
        ],
    }
    return sites, qparams, tuple(Loss(what, tuple(tensors)) for what, tensors in said.items() if tensors)
