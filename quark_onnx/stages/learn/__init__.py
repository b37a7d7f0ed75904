"""Range learning: ranges of activations and weights, with the weights and biases, layer by layer (AIMET's two schemes).

AIMET learns them in training, end to end; here each layer learns from the float one (see numerics.range_learning), on
what the layers before it, as learned, now feed it. A layer is changed only if samples held out say that it helps. The
range of an activation is learned at the first layer that reads it, that of an output which no layer reads at the layer
that computes it; then it stays.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan, QParams, Skip
from quark_onnx.core.records import LayerRecord, Tuning
from quark_onnx.core.settings.range_learning import RangeLearning
from quark_onnx.engine.data import Feed
from quark_onnx.engine.layers import Unit, match
from quark_onnx.engine.layers.data import Sides, bias_rows, float_of, like_bias, sides
from quark_onnx.engine.layers.grids import bias_grid, coded, grid_of
from quark_onnx.engine.samples import quarter_of_memory
from quark_onnx.engine.walk import Frontier, walk
from quark_onnx.graph import Model, Node
from quark_onnx.numerics.layer.held_out_split import Kept, held_out
from quark_onnx.numerics.layer.range_learning import BUDGET, Course, Free, LayerState, bytes_of, learn_layer
from quark_onnx.numerics.layer.sampling import Layer, Samples, draw
from quark_onnx.numerics.matrix_products import product
from quark_onnx.stages.learn.ranges import (
    STAYS,
    Written,
    biases_fit,
    is_fixed_grid,
    movable,
    qparams_of,
    quantizer_of,
    written,
)

logger = logging.getLogger("quark_onnx")

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]

LOUD = 1e12
"""Numbers from here on are too large to be squared and added up in float32, with room for a layer that overshoots."""

SLOWER = 0.25
"""Part of the learning rate at which a layer that did not gain is tried once more."""


def learn(model: Model, plan: Plan, feeds: Sequence[Feed], options: RangeLearning, limit: int, tell: Tell) -> Tuning:
    """Learn ranges, weights and biases; layers whose weight has codes in the plan already are left as they are.

    Args:
        model: the float model that the plan belongs to.
        plan: with ranges, which learning begins with.
        limit: bytes of activations held in memory.
        tell: called as `tell(text, layers done, layers)`.
    """
    units, reasons = match(model, plan, options.target_op_type)
    why = {name: _why_not(model, unit, plan) for name, unit in units.items()}
    reasons |= {name: reason for name, reason in why.items() if reason is not None}
    todo = {name: unit for name, unit in units.items() if why[name] is None}
    readers = Counter(unit.weight for unit in units.values())
    learner = _Learner(model, plan, todo, readers, {name: i for i, name in enumerate(units)}, options, tell)
    open_ends = {unit.data for unit in todo.values() if is_fixed_grid(plan.sites.get(unit.data))}
    interrupted = False
    try:
        walk(model, plan, feeds, todo.keys(), learner.visit, limit, floats=open_ends)
    except KeyboardInterrupt:
        interrupted = True
        logger.warning("interrupted: %d of %d layers are learned, the others stay", len(learner.records), len(todo))
    return Tuning(learner.plan, tuple(learner.records), reasons | learner.reasons, interrupted)


def _why_not(model: Model, unit: Unit, plan: Plan) -> str | None:
    """Why nothing is learned at a layer, None if something is."""
    if unit.weight in plan.codes:
        return "its weight is tuned already"
    if unit.data in model.graph.initializers:
        return "its input is a constant"
    groups, rows, inputs = unit.geometry.rows(float_of(model, unit.weight)).shape
    if (needed := bytes_of((groups, rows, inputs))) > 2 * quarter_of_memory():
        return f"it takes {needed >> 20:,} MiB to learn, more than half of the memory"
    return None


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
class _Learner:
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
        start = LayerState(weight, *grids, bias, unit.activation, reading, writing, behind)
        parts = self._positions(Layer(weight, float_bias, read.shape), unit, read, frontier.pool)
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

    def _positions(self, layer: Layer, unit: Unit, read: Sides, pool: ThreadPoolExecutor) -> tuple[Kept, Kept] | Skip:
        """Random output positions, the same number of every sample: those to learn from, in random order, and those to
        judge by."""
        groups, rows, inputs = layer.weight.shape
        count = len(read.x)
        per = max(1, min(self.options.positions, BUDGET // (groups * (rows + inputs))) // count)
        seed = (self.options.fixed_seed, self.numbers[unit.node.name or ""])
        *seeds, last = np.random.SeedSequence(seed).spawn(count + 1)
        samples = Samples(read.x, read.z)

        def one(i: int) -> Kept:
            x, z = draw(layer, samples, i, per, 1.0, np.random.PCG64(seeds[i]))
            with np.errstate(over="ignore", invalid="ignore"):  # `_positions` looks at the numbers
                return Kept(product(x, np.swapaxes(layer.weight, 1, 2)) + layer.bias[:, None], z)

        drawn = list(pool.map(one, range(count)))
        held = held_out(count, self.options.holdout, self.options.fixed_seed)
        train, judge = (
            Kept(*(np.concatenate(side, 1) for side in zip(*part, strict=True))) if part else None
            for part in ([d for d, h in zip(drawn, held, strict=True) if h == side] for side in (False, True))
        )
        assert train is not None  # `held_out` leaves some
        if not all(np.abs(side).max() < LOUD for part in drawn for side in part):  # nan is not
            return Skip("the layer's input or output is not finite, or too large to be squared")
        if train.y.shape[1] < 2:
            return Skip("it has a single output position in all samples: give more of them")
        order = np.random.Generator(np.random.PCG64(last)).permutation(train.y.shape[1])
        shuffled = Kept(train.y[:, order], train.z[:, order])
        return shuffled, shuffled if judge is None else judge

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
