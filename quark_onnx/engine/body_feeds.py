"""What goes into the bodies of control flow while a model runs: calibration data for each, as it is a model of its own.

    If      the branch that the condition takes reads what is around it
    Loop    its body runs step by step, on what the step before it has left: f(i, condition, state) → condition, state
    Scan    likewise, on the slices of its inputs

All of it can be seen from outside: the inputs of the node and what its bodies read are tensors of the graph around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.kept_feeds import HELD, Keeper, Kept
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model, Node, Value, io
from quark_onnx.graph.bodies import Body, bodies
from quark_onnx.graph.view import constant, is_constant, rank

RUNNABLE = ("If", "Loop", "Scan")
"""Operators of which it is known what goes into their bodies."""

STEPS = 32
"""Steps of a loop that are kept of a sample, at most and evenly spaced: each holds all that the body reads."""

Values = Mapping[str, Any]


def body_feeds(model: Model, feeds: Iterable[Feed], models: Mapping[str, Model]) -> dict[str, Kept]:
    """Feeds for some bodies, in the order of `feeds`; none for one that never runs.

    Args:
        model: holds the bodies.
        models: what they compute, by key.

    Raises:
        DataError: the model or a body fails on a sample.
    """
    runs = [_Run.of(body, models[body.key]) for body in bodies(model.graph) if body.key in models]
    kept = {run.body.key: Keeper(HELD // len(runs)) for run in runs}
    given = {value.name for value in model.graph.inputs}
    wanted = list(dict.fromkeys(name for run in runs for name in run.reads if name not in given))
    runner = Runner(io.with_outputs(model, wanted), wanted)
    for feed in feeds:
        values = feed | dict(zip(wanted, runner(feed) if wanted else [], strict=True))
        for run in runs:
            for step in run.feeds(values):
                kept[run.body.key].add(step)
    return {key: keeper.kept for key, keeper in kept.items()}


@dataclass(frozen=True)
class _Run:
    """A body, the names of its own inputs, and those of the tensors around it that it reads."""

    body: Body
    formal: tuple[str, ...]
    around: tuple[str, ...]
    run: Callable[[Feed], Any]

    @classmethod
    def of(cls, body: Body, model: Model) -> _Run:
        names = [value.name or "" for value in model.graph.inputs]
        count = len(body.graph.inputs)
        run: Callable[[Feed], Any] = (lambda feed: []) if body.node.op_type == "If" else Runner(model)
        return cls(body, tuple(names[:count]), tuple(names[count:]), run)

    @property
    def reads(self) -> list[str]:
        """Tensors that have to be seen."""
        given = [value for value in self.body.node.inputs if value is not None and not is_constant(value)]
        return [value.name or "" for value in given] + list(self.around)

    def feeds(self, values: Values) -> Iterator[Feed]:
        """What goes into the body for one sample."""
        node = self.body.node
        inputs = [None if value is None else _of(value, values) for value in node.inputs]
        around = {name: values[name] for name in self.around}
        if node.op_type == "If":
            taken = "then_branch" if np.all(inputs[0]) else "else_branch"
            yield from [around] if taken == self.body.attribute else []
        else:
            steps = _loop if node.op_type == "Loop" else _scan
            yield from spaced_out(feed | around for feed in steps(node, inputs, self._step(around)))

    def _step(self, around: Feed) -> _Step:
        def step(arrays: Sequence[NDArray[Any]]) -> tuple[Feed, list[NDArray[Any]]]:
            values = zip(self.formal, self.body.graph.inputs, arrays, strict=True)
            feed = {
                name: array.reshape(1) if array.size == rank(value) == 1 else array for name, value, array in values
            }
            return feed, self.run(feed | around)

        return step


_Step = Callable[[Sequence[NDArray[Any]]], tuple[Feed, list[NDArray[Any]]]]
"""The inputs of a body for one step → these by name, and what the body makes of them."""


def _of(value: Value, values: Values) -> Any:
    found = constant(value)
    return values[value.name or ""] if found is None else found


def _loop(node: Node, inputs: Sequence[Any], step: _Step) -> Iterator[Feed]:
    count, going, *state = inputs
    index, going = 0, np.asarray(True) if going is None else going
    while (count is None or index < count.item()) and np.all(going):
        feed, (going, *made) = step([np.asarray(index, np.int64), going, *state])
        yield feed
        state, index = made[: len(state)], index + 1


def _scan(node: Node, inputs: Sequence[Any], step: _Step) -> Iterator[Feed]:
    count = node.attributes.get_int("num_scan_inputs", 0)
    state, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    axes = node.attributes.get_ints("scan_input_axes", [0] * count)
    backwards = node.attributes.get_ints("scan_input_directions", [0] * count)
    parts = [
        np.moveaxis(x, axis, 0)[:: -1 if back else 1] for x, axis, back in zip(scanned, axes, backwards, strict=True)
    ]
    for slices in zip(*parts, strict=True):
        feed, made = step([*state, *map(np.array, slices)])
        yield feed
        state = made[: len(state)]


def spaced_out(steps: Iterable[Feed], most: int = STEPS) -> list[Feed]:
    """At most so many, evenly spaced from the first one on, of steps whose number is not known beforehand."""
    kept: list[Feed] = []
    stride = 1
    for number, step in enumerate(steps):
        if number % stride:
            continue
        if len(kept) == most:
            kept, stride = kept[::2], stride * 2
            if number % stride:
                continue
        kept.append(step)
    return kept
