"""Which tensors have the narrower types when some layers do.

A tensor has one type, and so have all that share its scale. It is the narrower one when all layers that read or make
it are narrow. What no layer touches goes with the layers around it: all that are reached through other operators.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan, Site
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import is_op

Groups = Mapping[str, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Layout:
    """Two placements of one model that differ in types, and what decides between them.

    base, other  the plan of the configuration, and with the types that layers move to; sites without scales
    narrows      `other` has the narrower types
    layers       layer → groups of tensors that it reads, makes, or has as weight; in order of the graph
    owners       group → layers that decide its type, see the module
    """

    base: Plan
    other: Plan
    narrows: bool
    layers: Groups
    owners: Groups

    def plan(self, narrow: Collection[str]) -> Plan:
        """The sites when these layers are narrow, without scales."""
        all_narrow = {group for group, owners in self.owners.items() if owners and owners <= set(narrow)}
        moved = {
            tensor
            for tensor, site in self.base.sites.items()
            if self._can_move(site) and (site.group in all_narrow) == self.narrows
        }
        sites = {tensor: self.other.sites[tensor] if tensor in moved else s for tensor, s in self.base.sites.items()}
        stays = any(self._can_move(site) for tensor, site in self.base.sites.items() if tensor not in moved)
        kept = (self.base.sites.keys() if not stays else self.base.remarks.keys()) - moved
        told = {key: text for key, text in self.base.remarks.items() if key in kept}
        told |= {k: t for k, t in self.other.remarks.items() if moved and (k in moved or k not in self.base.sites)}
        return replace(self.base, sites=sites, remarks=told)

    def moved(self, layer: str, narrow: Plan, wide: Plan) -> set[str]:
        """Tensors of a layer that have fewer bits in one plan than in the other, or are float there."""
        own = {tensor for tensor, site in narrow.sites.items() if site.group in self.layers[layer]}
        return {t for t in own if t not in wide.sites or narrow.sites[t].format.bits < wide.sites[t].format.bits}

    def _can_move(self, site: Site) -> bool:
        """Whether some layer decides the tensor's type, and both placements quantize it."""
        return site.role != "bias" and bool(self.owners.get(site.group)) and site.tensor in self.other.sites


def layout_of(model: Model, base: Plan, other: Plan, *, narrows: bool) -> Layout:
    """The layout of two placements."""
    touched = {node: _groups(base, tensors) for node, tensors in base.nodes.items()}
    layers = {node.name or "": touched[node.name or ""] for node in model.graph if _is_layer(node, base)}
    owners = _direct(layers)
    around = [groups for node, groups in touched.items() if node not in layers]
    owners |= _indirect({site.group for site in base.sites.values()} - owners.keys(), around, owners)
    return Layout(base, other, narrows, layers, owners)


def _is_layer(node: Node, plan: Plan) -> bool:
    return is_op(node, *LAYERS) and node.name in plan.nodes


def _groups(plan: Plan, tensors: Iterable[str]) -> frozenset[str]:
    """Groups of the activations and weights among the tensors."""
    sites = (plan.sites[tensor] for tensor in tensors if tensor in plan.sites)
    return frozenset(site.group for site in sites if site.role != "bias")


def _direct(layers: Groups) -> dict[str, frozenset[str]]:
    """Group → layers that touch it."""
    found: dict[str, set[str]] = {}
    for layer, groups in layers.items():
        for group in groups:
            found.setdefault(group, set()).add(layer)
    return {group: frozenset(names) for group, names in found.items()}


def _indirect(
    open_groups: Collection[str], nodes: Collection[frozenset[str]], owners: Groups
) -> dict[str, frozenset[str]]:
    """Group that no layer touches → layers of the groups that are reached from it through other such groups."""
    found: dict[str, frozenset[str]] = {}
    for start in open_groups:
        reached, waiting = {start}, [start]
        while waiting:
            group = waiting.pop()
            beside = {g for groups in nodes if group in groups for g in groups} - reached
            reached |= beside
            waiting += [g for g in beside if g in open_groups]
        found[start] = frozenset().union(*(owners.get(group, frozenset()) for group in reached))
    return found
