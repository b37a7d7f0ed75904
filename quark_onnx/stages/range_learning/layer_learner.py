"""What happens at one layer: what of it may be learned, what was, and whether the plan takes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from quark_onnx.core.plan import Coded, Plan, QParams, Skip
from quark_onnx.core.records import LayerRecord
from quark_onnx.core.settings.range_learning import RangeLearning
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import bias_rows, float_of, like_bias, sides
from quark_onnx.engine.layers.row_grids import bias_grid, coded, grid_of
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

Tell = Callable[[str, int, int], None]

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
    """State of the fold: the plan so far, and the groups of activations that are learned."""

    model: Model
    plan: Plan
    units: Mapping[str, Unit]
    readers: Mapping[str, int]
    numbers: Mapping[str, int]
    options: RangeLearning
    tell: Tell
    records: list[LayerRecord] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        sites = (self.plan.sites.get(unit.data) for unit in self.units.values())
        self.taken = {site.group for site in sites if site is not None}

    def visit(self, node: Node, frontier: Frontier, plan: Plan) -> Plan:
        """Learn one layer."""
        begin = time.perf_counter()
        name = node.name or ""
        unit = self.units[name]
        done = len(self.records) + len(self.reasons)
        self.tell(name, done, len(self.units))
        task = self._task(unit, frontier)
        if isinstance(task, Skip):
            self.reasons[name] = task.reason
            return self.plan
        before, after, iterations = self._learn(task)
        accepted = after is not task.start
        if accepted:
            self.plan = self._with(task, after)
        if (site := self.plan.sites.get(unit.data)) is not None:
            self.learned.add(site.group)
        held = _score(after, task.held) if accepted else before
        seconds = round(time.perf_counter() - begin, 4)
        losses = (_score(task.start, task.train), _score(after, task.train), before, held)
        choice = "tuned" if accepted else "raw"
        self.records.append(LayerRecord(name, node.op_type, choice, accepted, iterations, seconds, *losses))
        self.tell(f"{name}: {_decibel(task, before, held)} ({choice})", done + 1, len(self.units))
        return self.plan

    def _learn(self, task: _Task) -> tuple[float, LayerState, int]:
        """The held-out loss as it is, the state that is best there (the very start if that is), and the iterations."""
        o, before = self.options, _score(task.start, task.held)
        batch = o.batch_size if len(task.start.weight) == 1 else max(1, o.batch_size // 4)  # every group sees them all
        seed = (o.fixed_seed, self.numbers[task.unit.node.name or ""])
        for i, rate in enumerate((o.learning_rate, SLOWER * o.learning_rate), start=1):
            course = Course(o.num_iterations, rate, batch, seed)
            found = self._storable(task.unit, learn_layer(task.start, task.train, task.free, course))
            if _score(found, task.held) < before and biases_fit(self.model, self._with(task, found)):
                return before, found, i * o.num_iterations
        return before, task.start, 2 * o.num_iterations

    def _storable(self, unit: Unit, state: LayerState) -> LayerState:
        """The state with the bias that its type can hold."""
        own = bias_grid(self.plan, unit.bias)
        return state if own is None else replace(state, bias=own.nearest(state.bias))

    def _task(self, unit: Unit, frontier: Frontier) -> _Task | Skip:
        read = sides(unit, frontier, self.options.data_size)
        if isinstance(read, Skip):
            return read
        weight = unit.geometry.rows(float_of(self.model, unit.weight))
        float_bias = bias = np.zeros(weight.shape[:2], np.float32)
        if unit.bias is not None:
            float_bias = bias_rows(float_of(self.model, unit.bias), weight.shape)
            value = self.plan.values.get(unit.bias)
            bias = float_bias if value is None else bias_rows(value.astype(np.float32), weight.shape)
        grid = grid_of(self.plan.qparams_of(unit.weight), self.plan.sites[unit.weight].format, weight.shape[:2])
        out = written(self.plan, unit, self.taken)
        reading = quantizer_of(self.plan, unit.data) if is_fixed_grid(self.plan.sites.get(unit.data)) else None
        writing = None if out is None else quantizer_of(self.plan, out.tensor)
        behind = out is not None and out.behind
        grids = (grid.scale, grid.low, grid.high, grid.shared)
        start = LayerState(weight, *grids, bias, unit.activation, reading, writing, behind, grid.safe_pairs)
        parts = kept_positions(
            Layer(weight, float_bias, read.shape),
            read,
            self.options,
            self.numbers[unit.node.name or ""],
            frontier.pool,
        )
        if isinstance(parts, Skip):
            return parts
        return _Task(unit, self._storable(unit, start), self._free(unit, out), out, *parts)

    def _free(self, unit: Unit, out: Written | None) -> Free:
        """What of a layer may be learned: a weight that several layers read stays, and so does a learned range."""
        weight, data = self.plan.sites[unit.weight], self.plan.sites.get(unit.data)
        own = self.readers[unit.weight] == 1
        reading = STAYS
        if data is not None and is_fixed_grid(data) and data.group not in self.learned:
            reading = movable(self.plan, unit.data)
        alone = own and sum(site.group == weight.group for site in self.plan.sites.values()) == 1
        return Free(
            weight=own and self.options.learn_weights,
            scale=alone and movable(self.plan, unit.weight).scale,
            bias=unit.movable and self.options.update_bias,
            reading=reading.scale,
            reading_zero=reading.zero,
            writing=out is not None,
            writing_zero=out is not None and movable(self.plan, out.tensor).zero,
        )

    def _with(self, task: _Task, state: LayerState) -> Plan:
        """The plan with what was learned."""
        unit, free = task.unit, task.free
        codes, values, chosen = dict(self.plan.codes), dict(self.plan.values), dict(self.plan.qparams)
        q, shape = self.plan.qparams_of(unit.weight), state.scale.shape
        whole, scale = coded(state.codes, state.scale, q, shape)
        if free.scale:
            chosen[self.plan.sites[unit.weight].group] = QParams(np.asarray(scale), q.zero_point)
        if free.weight:
            rows = unit.geometry.weight(whole, float_of(self.model, unit.weight))
            codes[unit.weight] = Coded(rows, np.asarray(scale))
        if free.bias and unit.bias is not None:
            values[unit.bias] = like_bias(state.bias, float_of(self.model, unit.bias))
        if free.reading and state.reading is not None:
            chosen[self.plan.sites[unit.data].group] = qparams_of(state.reading)
        if task.written is not None and state.writing is not None:
            chosen[self.plan.sites[task.written.tensor].group] = qparams_of(state.writing)
        return replace(self.plan, codes=codes, values=values, qparams=chosen)


def _score(state: LayerState, kept: Kept) -> float:
    """The loss of the layer, inf where it is not a number."""
    total = float(state.losses(kept).sum(dtype=np.float64))
    return total if math.isfinite(total) else math.inf


def _decibel(task: _Task, before: float, after: float) -> str:
    """SQNR on the held-out samples, before and after."""
    wanted = task.start.activation.value(task.held.y)
    signal = float(np.square(wanted).mean(1).sum(dtype=np.float64))
    found = (10 * math.log10(signal / loss) if loss > 0 and signal > 0 else math.inf for loss in (before, after))
    return " → ".join(f"{value:.1f}" for value in found) + " dB"
