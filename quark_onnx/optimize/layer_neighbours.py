"""Which layers a quantizer stands for: those that read its tensor next, or where none does, those in front of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from quark_onnx.core.plan import Plan
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.graph import Model, Node, Value

L = TypeVar("L")


def readers(model: Model, plan: Plan, owner: Mapping[Node, L]) -> dict[str, list[L]]:
    """Quantized activation → the layers that it is quantized for; owner: those of them that have integer kernels."""
    values = {value.name or "": value for value in model.graph.inputs}
    values |= {value.name or "": value for node in model.graph for value in node.outputs}
    found = {}
    for tensor, site in plan.sites.items():
        if site.role == "activation" and has_scale(site) and tensor in values:
            near = _near([values[tensor]], [values[tensor]], owner)
            if near:
                found[tensor] = near
    return found


def followers(model: Model, nodes: Collection[str], owner: Mapping[Node, L]) -> dict[str, list[L]]:
    """Node between layers → those that its quantizers stand for; nodes: all that have some."""
    between = [node for node in model.graph if node.name in nodes and node not in owner]
    return {node.name or "": _near(node.outputs, [v for v in node.inputs if v], owner) for node in between}


def _near(ahead: Sequence[Value], behind: Sequence[Value], owner: Mapping[Node, L]) -> list[L]:
    return _next(ahead, owner, forward=True) or _next(behind, owner, forward=False)


def _next(start: Iterable[Value], owner: Mapping[Node, L], *, forward: bool) -> list[L]:
    found: dict[int, L] = {}
    waiting = list(start)
    seen = set(waiting)
    while waiting:
        value = waiting.pop()
        nodes = value.consumers() if forward else [n for n in [value.producer()] if n is not None]
        for node in nodes:
            if node in owner:
                found[id(owner[node])] = owner[node]
                continue
            further = [v for v in (node.outputs if forward else node.inputs) if v is not None and v not in seen]
            seen.update(further)
            waiting += further
    return list(found.values())
