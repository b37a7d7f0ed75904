"""Values that a gate shuts out need no codes of their own: how far down the range of a gated tensor has to reach.

    y = x · clip(x + s, 0, m)  =  0                       for x ≤ −s
    y = x · Q(1 / (1 + exp(−x)))  =  0                    for x ≤ −ln(2 n − 1),   Q: n steps from 0 to 1

Below that end, −s or −ln(2 n − 1), the gate is 0 exactly, and so is the product, whatever is left of x. A convolution
in front of a HardSwish may reach from −160 to 20: with codes for all of that, its steps are seven times as wide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from quark_onnx.core.plan import Site
from quark_onnx.graph import Graph, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, sole_reader


def with_floors(graph: Graph, sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites, with the lower ends that their readers need; other tensors in the group may need more."""
    changed, sharing = dict(sites), Counter(site.group for site in sites.values())
    values = (value for node in graph for value in (*node.inputs, *node.outputs) if value is not None)
    for value in dict.fromkeys(values):
        site = sites.get(value.name or "")
        if site is None or site.role != "activation" or site.range is not None or sharing[site.group] > 1:
            continue
        floor = _floor(value, sites)
        if floor is not None and site.format.scale != "pow2":  # those are shifted later on
            changed[site.tensor] = replace(site, floor=floor)
    return changed


def _floor(value: Value, sites: Mapping[str, Site]) -> float | None:
    """The end below which none of the readers, a gate and maybe the product with it, tells one value from another."""
    readers = list(dict.fromkeys(value.consumers()))
    if value.is_graph_output():
        return None
    for gate in readers:
        behind, floor = _sigmoid(gate, sites) or _clipped(gate, value) or (None, None)
        others = [node for node in readers if node is not gate]
        if behind is None or (not others and not is_op(gate, "Sigmoid")):
            continue
        if all(is_op(node, "Mul") and sole_reader(behind) is node for node in others):
            return floor
    return None


def _sigmoid(node: Node, sites: Mapping[str, Site]) -> tuple[Value, float] | None:
    """The output of a Sigmoid with steps from 0 to 1, and where its code begins to be above 0."""
    site = sites.get(node.outputs[0].name or "") if is_op(node, "Sigmoid") else None
    if site is None or site.range != (0.0, 1.0):
        return None
    return node.outputs[0], -math.log(2 * (site.format.hi - site.format.lo) - 1)


def _clipped(add: Node, value: Value) -> tuple[Value, float] | None:
    """The output of the Clip behind an Add of a positive number, and where it begins to be above 0."""
    if not is_op(add, "Add") or (clip := sole_reader(add.outputs[0])) is None or not is_op(clip, "Clip"):
        return None
    number = constant(add.inputs[1] if add.inputs[0] is value else add.inputs[0])
    low = constant(input_at(clip, 1))
    if number is None or number.size != 1 or number.item() <= 0 or low is None or low.item() != 0:
        return None
    return clip.outputs[0], -float(number.item())
