"""Which tensors have the narrower types when some layers do.

A tensor has the narrower one when all layers that decide its type are narrow, see `engine.type_owners`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from quark_onnx.core.plan import Plan, Site
from quark_onnx.engine.type_owners import Groups, type_owners
from quark_onnx.graph import Model


@dataclass(frozen=True, eq=False)
class Layout:
    """Two placements of one model that differ in types, and what decides between them.

    base, other  the plan of the configuration, and with the types that layers move to; sites without scales
    narrows      `other` has the narrower types
    layers       layer → groups of tensors that it reads, makes, or has as weight; in order of the graph
    owners       group → layers that decide its type
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
    found = type_owners(model.graph, base.sites, base.nodes)
    return Layout(base, other, narrows, found.layers, found.owners)
