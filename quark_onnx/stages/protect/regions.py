"""What was protected, region by region: nodes that became float and are neighbours, and what that is worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from quark_onnx.core.plan import Plan
from quark_onnx.core.records import ProtectedRegion
from quark_onnx.engine.output_judge import Worth
from quark_onnx.graph import Model
from quark_onnx.stages.protect.noise_by_group import Part


class Search(Protocol):
    """What regions are measured with: see `protection.Search`."""

    @property
    def plan(self) -> Plan: ...
    @property
    def before(self) -> float: ...
    @property
    def noise(self) -> Mapping[Part, Worth]: ...
    def without(self, parts: Collection[Part]) -> Plan: ...
    def worth(self, plan: Plan) -> float: ...
    def share_left(self, plan: Plan) -> float: ...
    def time(self, plan: Plan) -> float: ...


def told(part: Part, noise: Worth) -> str:
    """What was found of a part, as a sentence."""
    whose = f"the quantizer of {part[0]!r}" if len(part) == 1 else f"the quantizers from {part[0]!r} to {part[-1]!r}"
    return f"with {whose} alone output {noise[1]!r} has {noise[0]:.1f} dB"


def regions(model: Model, search: Search, parts: Sequence[Part]) -> Iterator[ProtectedRegion]:
    """A record per region. `parts`: those that were taken out, the most harmful one first."""
    before, after = search.plan, search.without(parts)
    lost = [node.name or "" for node in model.graph if node.name in before.nodes and node.name not in after.nodes]
    worth = search.worth(after)
    for nodes in _neighbours(lost, before):
        tensors = {tensor for node in nodes for tensor in before.nodes[node]}
        groups = {before.sites[tensor].group for tensor in tensors}
        mine = [part for part in parts if not groups.isdisjoint(part)]
        alone = search.without(mine)
        yield ProtectedRegion(
            action="float",
            tensors=tuple(tensor for tensor in before.sites if tensor in tensors and tensor not in after.sites),
            nodes=tuple(nodes),
            reason="; ".join(told(part, search.noise[part]) for part in mine[:2]),
            output=search.noise[mine[0]][1],
            before=search.worth(search.without([part for part in parts if part not in mine])),
            after=worth,
            products=1 - search.share_left(alone),
            time=search.time(alone) / search.time(before) - 1,
        )


def own_scales_region(search: Search, apart: Search) -> ProtectedRegion:
    """The record of weights that got a scale per channel. `apart`: the search with them."""
    before, after = search.plan.sites, apart.plan.sites
    weights = [t for t, site in after.items() if site.role == "weight" and site.format.axis != before[t].format.axis]
    mine = min((part for part in search.noise if not set(part).isdisjoint(weights)), key=lambda p: search.noise[p])
    return ProtectedRegion(
        action="own scales",
        tensors=tuple(weights),
        nodes=tuple(node for node, tensors in apart.plan.nodes.items() if not set(tensors).isdisjoint(weights)),
        reason=told(mine, search.noise[mine]),
        output=search.noise[mine][1],
        before=search.before,
        after=apart.before,
        products=0.0,
        time=0.0,
    )


def _neighbours(nodes: Sequence[str], plan: Plan) -> list[list[str]]:
    """The nodes in parts that share no tensor, both in the given order."""
    parts: list[tuple[list[str], set[str]]] = []
    for node in nodes:
        mine, tensors = [node], {plan.sites[tensor].group for tensor in plan.nodes[node]}
        apart = []
        for others, theirs in parts:
            if tensors.isdisjoint(theirs):
                apart.append((others, theirs))
            else:
                mine, tensors = others + mine, tensors | theirs
        parts = [*apart, (mine, tensors)]
    return [sorted(names, key=nodes.index) for names, _ in parts]
