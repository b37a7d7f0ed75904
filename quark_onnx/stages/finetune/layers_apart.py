"""Layers that learn apart from each other, in processes of a crew: of the model as it was before any was tuned.

    layers, in as many groups as there are processes ─▶ walk along all layers, tune those of the group ─▶ changes

All walks cut the graph at the same places, so that each layer reads the very numbers that it would read in one process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan, Skip
from quark_onnx.core.settings.fast_finetune import FastFinetune
from quark_onnx.engine.activation_store import Store
from quark_onnx.engine.activation_walk import Frontier, Visitor, walk
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.counted_positions import Counted
from quark_onnx.engine.crew import Crew, over
from quark_onnx.engine.tuning_walk import Finder, Found
from quark_onnx.graph import Model, Node
from quark_onnx.stages.finetune.expected_seconds import BASE
from quark_onnx.stages.finetune.layer_finders import Finders, layer_finders

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tuned:
    """What was found for layers, as another process sends it: the changes of the plan, and names in place of nodes."""

    codes: Mapping[str, Coded]
    values: Mapping[str, Array]
    nodes: tuple[str, ...]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, found: Found, before: Plan) -> Tuned:
        """Of what was found under a plan."""
        codes = {name: coded for name, coded in found.plan.codes.items() if name not in before.codes}
        values = {name: value for name, value in found.plan.values.items() if _other(value, before.values.get(name))}
        names = tuple(node.name or "" for node in found.nodes)
        told = {name: getattr(found, name) for name in ("choice", "losses", "held", "iterations", "signal")}
        return cls(codes, values, names, told)

    def onto(self, plan: Plan, nodes: Mapping[str, Node]) -> Found:
        """The same, under a plan that other layers have changed."""
        if self.codes or self.values:
            plan = replace(plan, codes={**plan.codes, **self.codes}, values={**plan.values, **self.values})
        return Found(plan, tuple(nodes[name] for name in self.nodes), **self.told)


Result = Tuned | Skip | None


def _other(value: Array, before: Array | None) -> bool:
    return before is None or not np.array_equal(value, before)


@dataclass(frozen=True, eq=False)
class LayersApart:
    """How layers are tuned, all by the same plan; sent to every process."""

    plan: Plan
    feeds: Sequence[Feed]
    options: FastFinetune
    gains: Mapping[str, Array]
    limit: int
    counted: Counted | None

    def __call__(self, model: Model) -> Any:
        """The work of a process: what it finds for some layers, by name."""
        return partial(self._tuned, model)

    def _tuned(self, model: Model, layers: Collection[str]) -> dict[str, Result]:
        finders = layer_finders(model, self.plan, self.feeds, self.options, self.gains).by_layer
        found: dict[str, Result] = {}

        def visit(node: Node, frontier: Frontier, plan: Plan) -> Plan:
            if (name := node.name or "") in layers:
                one = finders[name](node, frontier, self.plan)
                found[name] = Tuned.of(one, self.plan) if isinstance(one, Found) else one
                if len(found) == len(layers):
                    raise _Done
            return plan

        before = replace(self.plan, codes={}, values={})
        with contextlib.suppress(_Done):
            walk(model, before, self.feeds, finders, visit, self.limit, follow=False, counted=self.counted)
        return found


class _Done(Exception):
    """What is left of the walk nobody needs."""


def tuned_apart(crew: Crew, model: Model, finders: Finders, how: LayersApart) -> dict[str, Finder]:
    """Finders that tell what processes of the crew have found."""
    found: dict[str, Result] = {}
    for some in over(crew, model, how, groups(finders, crew.slots)):
        found |= some
    nodes = {node.name or "": node for node in model.graph}

    def told(node: Node, frontier: Frontier, plan: Plan) -> Found | Skip | None:
        one = found[node.name or ""]
        return one.onto(plan, nodes) if isinstance(one, Tuned) else one

    return dict.fromkeys(finders.by_layer, told)


def visited(model: Model, plan: Plan, layers: Collection[str], visit: Visitor) -> None:
    """Visit layers in the order of the graph, with nothing to read at any."""
    with Store(0) as nothing, ThreadPoolExecutor(1) as pool:
        frontier = Frontier(nothing, nothing, pool, lambda name, sample, array: [array])
        for node in model.graph:
            if node.name in layers:
                visit(node, frontier, plan)


def groups(finders: Finders, count: int) -> list[list[str]]:
    """So many groups of layers, or fewer, that take about the same time: each walks as far as its last layer.

    Layers that share a weight are in one group.
    """
    names = list(finders.by_layer)
    least, most = 0.0, 2 * sum(finders.passing.get(name, 0.0) + _own(finders, name) for name in names)
    for _ in range(30):
        middle = (least + most) / 2
        least, most = (least, middle) if len(_cut(finders, names, middle)) <= count else (middle, most)
    found = _cut(finders, names, most)
    last = {name: i for i, group in enumerate(found) for name in group}
    home = {name: max(last[one] for one in (name, *(finders.sharing or {}).get(name, ()))) for name in names}
    return [group for i in range(len(found)) if (group := [name for name in names if home[name] == i])]


def _cut(finders: Finders, names: Sequence[str], seconds: float) -> list[list[str]]:
    """Layers in a row, in groups of which each takes so long at most, if one layer alone does not take longer."""
    found: list[list[str]] = [[]]
    passed = own = 0.0
    for name in names:
        passed, own = passed + finders.passing.get(name, 0.0), own + _own(finders, name)
        if found[-1] and passed + own > seconds:
            found.append([])
            own = _own(finders, name)
        found[-1].append(name)
    return found


def _own(finders: Finders, name: str) -> float:
    return finders.expected.get(name, BASE) - finders.passing.get(name, 0.0)
