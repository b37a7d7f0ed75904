"""What is better for a layer and the ranges around it: what of it may be learned, and what was."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from quark_onnx.core.plan import Coded, Plan, QParams, Skip
from quark_onnx.core.settings.fast_finetune import RangeLearning
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import bias_rows, float_of, like_bias, sides
from quark_onnx.engine.layers.row_grids import bias_grid, coded, grid_of
from quark_onnx.engine.tuning_walk import Found
from quark_onnx.graph import Model, Node
from quark_onnx.numerics.layer.held_out_split import Kept
from quark_onnx.numerics.layer.range_learning import Course, Free, LayerState, learn_layer
from quark_onnx.numerics.layer.sampling import Layer
from quark_onnx.stages.range_learning.kept_positions import kept_positions
from quark_onnx.stages.range_learning.learnable_ranges import (
    STAYS,
    Written,
    biases_fit,
    is_fixed_grid,
    movable,
    qparams_of,
    quantizer_of,
    written,
)

SLOWER = 0.25
"""Part of the learning rate at which a layer that did not gain is tried once more."""


@dataclass(frozen=True, eq=False)
class _Task:
    """A layer as it is, what of it may be learned, and the positions to learn from and to judge by."""

    unit: Unit
    start: LayerState
    free: Free
    written: Written | None
    train: Kept
    held: Kept


@dataclass
class LayerLearner:
    """Learns ranges, weights and biases.

    readers  of each weight, how many layers
    numbers  of the layers, for their random choices
    taken    groups of activations that layers read
    learned  those of them that are learned by now
    """

    model: Model
    units: Mapping[str, Unit]
    readers: Mapping[str, int]
    numbers: Mapping[str, int]
    options: RangeLearning
    taken: Collection[str]
    learned: set[str] = field(default_factory=set)

    def __call__(self, node: Node, frontier: Frontier, plan: Plan) -> Found | Skip:
        """What is better for the layer."""
        unit = self.units[node.name or ""]
        task = self._task(unit, frontier, plan)
        if isinstance(task, Skip):
            return task
        before, after, iterations = self._learn(task, plan)
        if (site := plan.sites.get(unit.data)) is not None:
            self.learned.add(site.group)
        gained = after is not task.start
        losses = _score(task.start, task.train), _score(after, task.train)
        held = before, _score(after, task.held) if gained else before
        signal = float(np.square(unit.activation.value(task.held.y)).mean(1).sum(dtype=np.float64))
        found = self._with(task, after, plan) if gained else plan
        return Found(found, (node,), "tuned", losses, held, iterations, signal)

    def _learn(self, task: _Task, plan: Plan) -> tuple[float, LayerState, int]:
        """The held-out loss as it is, the state that is best there (the very start if that is), and the iterations."""
        o, before = self.options, _score(task.start, task.held)
        batch = o.batch_size if len(task.start.weight) == 1 else max(1, o.batch_size // 4)  # every group sees them all
        seed = (o.fixed_seed, self.numbers[task.unit.node.name or ""])
        for i, rate in enumerate((o.learning_rate, SLOWER * o.learning_rate), start=1):
            course = Course(o.num_iterations, rate, batch, seed)
            found = _storable(task.unit, plan, learn_layer(task.start, task.train, task.free, course))
            if _score(found, task.held) < before and biases_fit(self.model, self._with(task, found, plan)):
                return before, found, i * o.num_iterations
        return before, task.start, 2 * o.num_iterations

    def _task(self, unit: Unit, frontier: Frontier, plan: Plan) -> _Task | Skip:
        read = sides(unit, frontier, plan, self.options.data_size)
        if isinstance(read, Skip):
            return read
        weight = unit.geometry.rows(float_of(self.model, unit.weight))
        float_bias = bias = np.zeros(weight.shape[:2], np.float32)
        if unit.bias is not None:
            float_bias = bias_rows(float_of(self.model, unit.bias), weight.shape)
            value = plan.values.get(unit.bias)
            bias = float_bias if value is None else bias_rows(value.astype(np.float32), weight.shape)
        grid = grid_of(plan.qparams_of(unit.weight), plan.sites[unit.weight].format, unit.geometry, weight.shape)
        out = written(plan, unit, self.taken)
        reading = quantizer_of(plan, unit.data) if is_fixed_grid(plan.sites.get(unit.data)) else None
        writing = None if out is None else quantizer_of(plan, out.tensor)
        behind = out is not None and out.behind
        grids = (grid.scale, grid.low, grid.high, grid.shared)
        start = LayerState(weight, *grids, bias, unit.activation, reading, writing, behind, grid.safe_run)
        parts = kept_positions(
            Layer(weight, float_bias, read.shape),
            read,
            self.options,
            self.numbers[unit.node.name or ""],
            frontier.pool,
        )
        if isinstance(parts, Skip):
            return parts
        return _Task(unit, _storable(unit, plan, start), self._free(unit, out, plan), out, *parts)

    def _free(self, unit: Unit, out: Written | None, plan: Plan) -> Free:
        """What of a layer may be learned: a weight that several layers read stays, and so does a learned range."""
        weight, data = plan.sites[unit.weight], plan.sites.get(unit.data)
        own = self.readers[unit.weight] == 1
        reading = STAYS
        if data is not None and is_fixed_grid(data) and data.group not in self.learned:
            reading = movable(plan, unit.data)
        alone = own and sum(site.group == weight.group for site in plan.sites.values()) == 1
        return Free(
            weight=own and self.options.learn_weights,
            scale=alone and movable(plan, unit.weight).scale,
            bias=unit.movable and self.options.update_bias,
            reading=reading.scale,
            reading_zero=reading.zero,
            writing=out is not None,
            writing_zero=out is not None and movable(plan, out.tensor).zero,
        )

    def _with(self, task: _Task, state: LayerState, plan: Plan) -> Plan:
        """The plan with what was learned."""
        unit, free = task.unit, task.free
        codes, values, chosen = dict(plan.codes), dict(plan.values), dict(plan.qparams)
        q, format = plan.qparams_of(unit.weight), plan.sites[unit.weight].format
        whole, scale = coded(state.codes, state.scale, q, format)
        if free.scale:
            chosen[plan.sites[unit.weight].group] = QParams(np.asarray(scale), q.zero_point)
        if free.weight:
            rows = unit.geometry.weight(whole, float_of(self.model, unit.weight))
            codes[unit.weight] = Coded(rows, np.asarray(scale))
        if free.bias and unit.bias is not None:
            values[unit.bias] = like_bias(state.bias, float_of(self.model, unit.bias))
        if free.reading and state.reading is not None:
            chosen[plan.sites[unit.data].group] = qparams_of(state.reading)
        if task.written is not None and state.writing is not None:
            chosen[plan.sites[task.written.tensor].group] = qparams_of(state.writing)
        return replace(plan, codes=codes, values=values, qparams=chosen)


def _storable(unit: Unit, plan: Plan, state: LayerState) -> LayerState:
    """The state with the bias that its type can hold."""
    own = bias_grid(plan, unit.bias)
    return state if own is None else replace(state, bias=own.nearest(state.bias))


def _score(state: LayerState, kept: Kept) -> float:
    """The loss of the layer, inf where it is not a number."""
    total = float(state.losses(kept).sum(dtype=np.float64))
    return total if math.isfinite(total) else math.inf
