"""Which layers decide the number type of a tensor.

A tensor has one type, and so have all that share its scale. Of these decide the layers that read or make one of them;
what no layer touches goes with the layers around it: all that are reached through other operators.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph
from quark_onnx.graph.view import is_op

Groups = Mapping[str, frozenset[str]]
Sites = Mapping[str, Site]


@dataclass(frozen=True)
class Owners:
    """Both ways round.

    layers  quantized layer → groups of tensors that it reads, makes, or has as weight; in order of the graph
    owners  group → layers that decide its type, see the module
    """

    layers: Groups
    owners: Groups


def type_owners(graph: Graph, sites: Sites, nodes: Mapping[str, Iterable[str]]) -> Owners:
    """Of a placement: its sites, and its quantized nodes with the tensors that carry a quantizer for them."""
    touched = {node: _groups(sites, tensors) for node, tensors in nodes.items()}
    names = [node.name or "" for node in graph if is_op(node, *LAYERS) and node.name in nodes]
    layers = {name: touched[name] for name in names}
    owners = _direct(layers)
    around = [groups for node, groups in touched.items() if node not in layers]
    owners |= _indirect({site.group for site in sites.values()} - owners.keys(), around, owners)
    return Owners(layers, owners)


def _groups(sites: Sites, tensors: Iterable[str]) -> frozenset[str]:
    """Groups of the activations and weights among the tensors."""
    found = (sites[tensor] for tensor in tensors if tensor in sites)
    return frozenset(site.group for site in found if site.role != "bias")


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
