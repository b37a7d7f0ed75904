"""Output ranges that operators have in the types that their sites ended up with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph


def with_known_ranges(
    graph: Graph, sites: Mapping[str, Site], nodes: Collection[str], ops: Mapping[str, Op]
) -> dict[str, Site]:
    """The sites, with the ranges that operators have in the types that the sites ended up with.

    Only where the type was changed after the rules: ranges that a user gave, and shared ones, stay.
    """
    changed = dict(sites)
    for node in graph:
        if node.name not in nodes or (row := ops[node.op_type]).wide_range is None:
            continue
        site = sites.get(node.outputs[0].name or "")
        if site is None or site.group != site.tensor or site.method is not None:
            continue
        if site.range in (row.range, row.wide_range):
            changed[site.tensor] = replace(site, range=row.known_range(site.format.bits))
    return changed
