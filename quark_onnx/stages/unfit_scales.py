"""Scales that operators cannot compute with, though each of them is right for its own tensor.

kernels    scale of the input / scale of the output  must lie within `Op.ratio`; a pool of the quiet half of a tensor
           whose loud half decides the scale is beyond
divisors   |v| > scale / 2  for every v ≠ 0 that was seen, where 1/v or log v is computed, also behind operators that
           give 0 for 0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from quark_onnx.core.operators import NEVER_ZERO, ZERO_OF_ZERO
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.records import UNFIT
from quark_onnx.core.settings.targets import Target
from quark_onnx.graph import Graph, Model, Node, Value
from quark_onnx.graph.view import constant, input_at, is_op
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.masks_and_infinities import smallest

RATIO = UNFIT + "the scale of its input is {0:.3g} times that of its output, and its kernel takes {1:.3g} to {2:.3g}"
VANISHES = "{0} at {1!r} must not meet a 0, and {2} in {3!r} would become one: its step is {4:.3g}"


def without_unfit(model: Model, plan: Plan, statistics: Mapping[str, Statistics], target: Target) -> Plan:
    """The plan in which operators that could not compute with its scales are float; the same plan where all can.

    Args:
        plan: with scales, equal ones aligned.
        statistics: those that the ranges were chosen by.
    """
    reasons = _vanishing(model.graph, plan, statistics, target)
    plan = plan.without(reasons) if reasons else plan
    beyond = {node.name or "": reason for node in model.graph if (reason := _beyond(node, plan, target)) is not None}
    return plan.keeping({n: t for n, t in plan.nodes.items() if n not in beyond}, beyond) if beyond else plan


def _beyond(node: Node, plan: Plan, target: Target) -> str | None:
    """Why the integer kernel of a quantized node does not take its scales; None: it does, or there is none."""
    tensors = plan.nodes.get(node.name or "", ())
    limits = target.ops[node.op_type].ratio if tensors and is_op(node, *target.ops) else None
    if limits is None or any(plan.sites[tensor].format.storage_bits != 8 for tensor in tensors):
        return None
    read = [value.name or "" for value in node.inputs if value is not None and value.name in tensors]
    written = [tensor for tensor in tensors if tensor not in read]
    if not read or not written:
        return None
    inputs, output = [_scale(plan, tensor) for tensor in read], _scale(plan, written[-1])
    for scale in [math.prod(inputs)] if is_op(node, "Mul") else inputs:
        if not limits[0] <= scale / output < limits[1]:
            return RATIO.format(scale / output, *limits)
    return None


def _scale(plan: Plan, tensor: str) -> float:
    return float(plan.qparams_of(tensor).scale)


def divided_by(graph: Graph, plan: Plan, target: Target) -> set[str]:
    """Tensors of whose statistics `without_unfit` wants the smallest magnitude."""
    return {name for _, _, site in _divisions(graph, plan, target) for name in (site.tensor, site.group)}


def _divisions(graph: Graph, plan: Plan, target: Target) -> Iterator[tuple[Node, Value, Site]]:
    """Nodes, and what must not be 0 for them, if it is quantized."""
    for node in graph:
        for value in _divisors(node, target):
            site = plan.sites.get(value.name or "")
            if site is not None:
                yield node, value, site


def _vanishing(graph: Graph, plan: Plan, statistics: Mapping[str, Statistics], target: Target) -> dict[str, str]:
    """Groups in which values that are divided by would become 0, with the reason."""
    found: dict[str, str] = {}
    for node, value, site in _divisions(graph, plan, target):
        least = _least(site, value, statistics, target)
        if least is None or site.group not in plan.qparams:
            continue
        step = _scale(plan, site.tensor)
        if least <= step / 2:
            held = f"values of {least:.3g}" if least else "small values"
            found.setdefault(site.group, VANISHES.format(node.op_type, node.name, held, site.tensor, step))
    return found


def _divisors(node: Node, target: Target) -> Iterator[Value]:
    """What must not be 0 for the node to have a finite result: its divisor, and what that is 0 with."""
    if not is_op(node, *NEVER_ZERO) or (is_op(node, "Pow") and not _negative(input_at(node, 1))):
        return
    seen, waiting = set(), [input_at(node, NEVER_ZERO[node.op_type])]
    while waiting:
        value = waiting.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        yield value
        maker = value.producer()
        if is_op(maker, *ZERO_OF_ZERO) and maker is not None:
            waiting += maker.inputs
        elif maker is not None and is_op(maker, *target.ops) and target.ops[maker.op_type].kind == "same":
            waiting.append(maker.inputs[0])


def _negative(exponent: Value | None) -> bool:
    array = constant(exponent)
    return array is not None and bool((array < 0).any())


def _least(site: Site, value: Value, statistics: Mapping[str, Statistics], target: Target) -> float | None:
    """The smallest magnitude but 0 that the tensor is known to hold; None: the range is the user's."""
    array = constant(value)
    if array is not None:
        return float(np.abs(array[array != 0]).min(initial=np.inf))
    seen = statistics.get(site.tensor, statistics.get(site.group))
    if seen is not None:
        return smallest(seen)
    maker = value.producer()
    row = target.ops[maker.op_type] if maker is not None and is_op(maker, *target.ops) else None
    return None if row is None or row.known_range(site.format.bits) is None else 0.0
