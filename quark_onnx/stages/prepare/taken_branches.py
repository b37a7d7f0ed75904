"""Ifs of which the user says which branch is taken: the other one is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, io
from quark_onnx.graph.inline_branch import inline_branch
from quark_onnx.graph.passes import remove_unused
from quark_onnx.graph.rewrite import rewrite
from quark_onnx.graph.view import is_op
from quark_onnx.stages.prepare import inline_if

OPTION = "extra option InlineIf"


class Conditions(NamedTuple):
    """Of Ifs that are inlined: what the user says of each, a model that computes them, and its output for each."""

    branches: Mapping[str, str]
    model: Model
    outputs: Mapping[str, str]

    def refuse_others(self, feeds: Iterable[Feed]) -> None:
        """Whether the user is right, only data can tell.

        Raises:
            ConfigError: a sample takes another branch.
        """
        run = Runner(self.model, list(dict.fromkeys(self.outputs.values())))
        for number, feed in enumerate(feeds, start=1):
            found = dict(zip(run.outputs, run(feed), strict=True))
            for name, branch in self.branches.items():
                taken = "then" if np.all(found[self.outputs[name]]) else "else"
                if taken != branch:
                    raise ConfigError(
                        f"{OPTION}: If {name!r} is to take its {branch} branch, and for sample {number} of the data it "
                        f"takes the {taken} branch; take the If out of the option, or give other data"
                    )


def take_branches(model: Model, branches: Mapping[str, str]) -> Conditions:
    """Inline the branch of each If that is named; one may be inside a branch of another one that is named.

    Raises:
        ConfigError: there is no such If, or it is inside a body that stays one.
    """
    left, conditions = dict(branches), {}
    while left:
        rewrite(model.graph, [inline_if.RULE])  # what is inside a branch that is always taken is not inside
        found = [node for node in model.graph if is_op(node, "If") and node.name in left]
        if not found:
            raise ConfigError(_lacking(model, min(left)))
        for node in found:
            conditions[node.name or ""] = (node.inputs[0].name or "") if node.inputs[0] is not None else ""
            inline_branch(node, left.pop(node.name or ""))
    return Conditions(branches, _returning(model, conditions.values()), conditions)


def _lacking(model: Model, name: str) -> str:
    names = {node.name or "" for node in model.graph if is_op(node, "If")}
    if any(is_op(node, "If") and node.name == name for node in model.graph.all_nodes()):
        return f"{OPTION}: If {name!r} is inside a body; inline the If around it, too, or take this one out"
    return f"{OPTION}: the model has no If {name!r}{nearest(name, names)}"


def _returning(model: Model, names: Iterable[str]) -> Model:
    """The model that returns these tensors, which may be inputs or constants of it, and nothing else."""
    found = io.copy(model)
    graph = found.graph
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(values[name] for name in dict.fromkeys(names))
    remove_unused(found)
    return found
