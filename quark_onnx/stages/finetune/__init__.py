"""Fast fine-tuning, weight scales by output error and bias correction: layer by layer, each against the float model.

Fills `Plan.codes` and `Plan.values`. A fold over the layers: every layer reads what the layers before it, as tuned,
now produce (Nagel et al. 2020, section 3.3), and is changed only if held-out samples say that it helps.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan, Skip
from quark_onnx.core.records import LayerRecord, Tuning
from quark_onnx.core.settings.fast_finetune import AdaRound, FastFinetune, Nearest
from quark_onnx.engine.data import Feed
from quark_onnx.engine.layers import Unit, match
from quark_onnx.engine.layers.data import bias_rows, float_of, like_bias, sides
from quark_onnx.engine.layers.grids import all_factors, bias_grid, coded, codes_of, factors_for, grid_of
from quark_onnx.engine.samples import quarter_of_memory
from quark_onnx.engine.walk import Frontier, walk
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import constant
from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.bias import LIMIT
from quark_onnx.numerics.layer.held_out_split import LayerData, held_out
from quark_onnx.numerics.layer.sampling import Layer, Samples, bytes_of, sample
from quark_onnx.numerics.layer.tune import Tuned, tune
from quark_onnx.numerics.quantizer import dequantize
from quark_onnx.numerics.rounding.moments import with_bias
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.stages.finetune.norms import NORMS, NormUnit, fit_line, match_norms

logger = logging.getLogger("quark_onnx")

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]

KEPT = 6000
"""Positions of a layer that are kept to judge it through its activation function."""


def finetune(
    model: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    options: FastFinetune,
    gains: Mapping[str, Array],
    limit: int,
    tell: Tell,
    judge: Callable[[Plan], float] | None = None,
) -> Tuning:
    """Tune every layer that can be; layers that the plan already has codes for are left as they are (resuming).

    Args:
        model: the float model that the plan belongs to.
        options: method and settings; `Nearest` learns no rounding.
        gains: importance per channel of tensors, see `channel_importance`.
        limit: bytes of activations held in memory.
        tell: called as `tell(text, layers done, layers)`.
        judge: score of the whole model under a plan, higher is better; a layer that lowers it is not changed.
    """
    units, reasons = match(model, plan, [kind for kind in options.target_op_type if kind not in NORMS])
    norms, others = match_norms(model, plan, options)
    reasons |= others
    large = {name: _why_large(model, unit, options) for name, unit in units.items()}
    reasons |= {name: reason for name, reason in large.items() if reason is not None}
    todo = {name: unit for name, unit in units.items() if unit.weight not in plan.codes and large[name] is None}
    numbers = {name: i for i, name in enumerate(units)}  # not of `todo`: a resumed run draws what the first would have
    tuner = _Tuner(model, plan, todo, numbers, options, gains, tell, judge, norms)
    start = replace(plan, codes={}, values={}) if options.parallel else plan
    interrupted = False
    try:
        walk(model, start, feeds, todo.keys() | norms.keys(), tuner.visit, limit, follow=not options.parallel)
    except KeyboardInterrupt:
        interrupted = True
        logger.warning("interrupted: %d of %d layers are tuned, the others stay as they were", tuner.done, len(todo))
    return Tuning(tuner.plan, tuple(tuner.records), reasons | tuner.reasons, interrupted)


def _why_large(model: Model, unit: Unit, options: FastFinetune) -> str | None:
    """Why the layer is too large to be tuned: its sums grow with the square of its inputs. None if it is not."""
    array = constant(model.graph.initializers[unit.weight])
    assert array is not None
    groups, rows, inputs = unit.geometry.rows(array).shape
    needed = bytes_of((groups, rows, inputs), options.positions, KEPT)
    if needed <= 2 * quarter_of_memory():
        return None
    return f"it takes {needed >> 20:,} MiB to tune, more than half of the memory; fewer positions may help"


@dataclass
class _Tuner:
    """State of the fold: the plan so far, and data of weights that are still to be read by other layers."""

    model: Model
    plan: Plan
    units: Mapping[str, Unit]
    numbers: Mapping[str, int]
    options: FastFinetune
    gains: Mapping[str, Array]
    tell: Tell
    judge: Callable[[Plan], float] | None
    norms: Mapping[str, NormUnit]
    records: list[LayerRecord] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, list[tuple[Unit, LayerData]]] = field(default_factory=dict)
    done: int = 0
    score: float = -math.inf

    def __post_init__(self) -> None:
        self.readers = Counter(unit.weight for unit in self.units.values())

    def visit(self, node: Node, frontier: Frontier, plan: Plan) -> Plan:
        """Tune one layer, or keep its data until the last layer with the same weight comes."""
        if (norm := self.norms.get(node.name or "")) is not None:
            return self._visit_norm(norm, frontier)
        start = time.perf_counter()
        unit = self.units[node.name or ""]
        self.tell(node.name or "", self.done, len(self.units))
        shared = self.readers[unit.weight] > 1
        data, samples = self._data(unit, frontier, shared)
        self.done += 1
        if isinstance(data, Skip):
            self._give_up(unit, data.reason)
            return self.plan
        self.waiting.setdefault(unit.weight, []).append((unit, data))
        if len(self.waiting[unit.weight]) < self.readers[unit.weight]:
            return self.plan
        uses = self.waiting.pop(unit.weight)
        tuned = self._tune(unit, _sum([data for _, data in uses]), shared, samples, frontier)
        after = self._shared(uses, tuned) if shared else self._changed(unit, tuned)
        accepted = after is not self.plan and self._helps(after)
        self.plan = after if accepted else self.plan
        if accepted and not tuned.accepted:
            tuned = tuned._replace(choice="untuned")
        seconds = round(time.perf_counter() - start, 4)
        self.records += [_record(use.node, tuned, accepted, seconds) for use, _ in uses]
        self.tell(f"{node.name}: {_decibel(tuned)}", self.done, len(self.units))
        return self.plan

    def _visit_norm(self, unit: NormUnit, frontier: Frontier) -> Plan:
        """Fit scale and bias of a normalization, kept if the held-out samples gain."""
        start = time.perf_counter()
        x, z = frontier.exact[unit.data], frontier.rounded[unit.data]
        if (q := codes_of(self.plan, unit.data)) is not None:
            z = [dequantize(s, q, self.plan.sites[unit.data].format) for s in z]
        if not all(a.size and a.shape == b.shape and np.isfinite(a).all() for a, b in zip(x, z, strict=True)):
            self.reasons[unit.node.name or ""] = "its input is empty, not finite, or of another shape when quantized"
            return self.plan
        held = held_out(len(x), self.options.holdout, self.options.seed)
        line = fit_line(unit, self._float(unit.scale), self._float(unit.bias), x, z, held)
        after = replace(self.plan, values={**self.plan.values, unit.scale: line.scale, unit.bias: line.bias})
        accepted = line.held_after < line.held_before and self._helps(after)
        self.plan = after if accepted else self.plan
        seconds = round(time.perf_counter() - start, 4)
        choice = "tuned" if accepted else "raw"
        fitted = (line.loss_after, line.held_after) if accepted else (line.loss_before, line.held_before)
        losses = (line.loss_before, fitted[0], line.held_before, fitted[1])
        self.records.append(LayerRecord(unit.node.name or "", unit.node.op_type, choice, accepted, 1, seconds, *losses))
        return self.plan

    def _give_up(self, unit: Unit, reason: str) -> None:
        """Leave a layer as it is, and with it all that read its weight."""
        self.waiting.pop(unit.weight, None)
        for name, other in self.units.items():
            if other is unit:
                self.reasons[name] = reason
            elif other.weight == unit.weight:
                self.reasons.setdefault(name, f"shares its weight with {unit.node.name!r}: {reason}")

    def _data(self, unit: Unit, frontier: Frontier, shared: bool) -> tuple[LayerData | Skip, int]:
        """Statistics of the layer's input, and of how many samples."""
        read = sides(unit, frontier, self.options.data_size)
        if isinstance(read, Skip):
            return read, 0
        x, z = read.x, read.z
        scale, zero_point = 1.0, 0
        if (q := codes_of(self.plan, unit.data)) is not None:
            scale, zero_point = float(q.scale), int(q.zero_point)
        weight = unit.geometry.rows(self._float(unit.weight))
        bias = np.zeros(weight.shape[:2], np.float32)
        if unit.bias is not None and not shared:
            bias = self._bias(unit, weight)
        layer = Layer(weight, bias, read.shape, None if shared else _interval(unit.activation))
        seed = (self.options.seed, self.numbers[unit.node.name or ""])
        # every group sees every position, and a depthwise group has a handful of unknowns only
        positions = self.options.positions if len(weight) == 1 else max(1, self.options.positions // 4)
        try:
            data = sample(
                layer,
                Samples(x, z, scale, zero_point),
                held_out(len(x), self.options.holdout, self.options.seed),
                positions=positions,
                keep=0 if shared else min(KEPT, positions),
                drop_ratio=self.options.drop_ratio,
                seed=seed,
                pool=frontier.pool,
            )
        except ValueError as error:  # not finite
            return Skip(str(error)), len(x)
        if data.train.moments.count.max() < 2:  # nothing varies: any weight fits, with a bias
            return Skip("it has a single output position in all samples: give more of them"), len(x)
        return data, len(x)

    def _float(self, name: str) -> Array:
        return float_of(self.model, name)

    def _bias(self, unit: Unit, weight: Array) -> Array:
        assert unit.bias is not None
        return bias_rows(self._float(unit.bias), weight.shape)

    def _tune(self, unit: Unit, data: LayerData, shared: bool, samples: int, frontier: Frontier) -> Tuned:
        weight = unit.geometry.rows(self._float(unit.weight))
        site, q = self.plan.sites[unit.weight], self.plan.qparams_of(unit.weight)
        own = bias_grid(self.plan, unit.bias)
        integer_bias = unit.bias in self.plan.sites and own is None and not shared
        gain = self.gains.get(unit.node.outputs[0].name or "")
        count = weight.shape[0] * weight.shape[1]
        return tune(
            weight,
            None if shared or unit.bias is None else self._bias(unit, weight),
            data,
            grid_of(q, site.format, weight.shape[:2]),
            self._recipe(unit, samples, KEPT, movable=unit.movable and not shared),
            activation=Activation() if shared else unit.activation,
            gain=gain.reshape(weight.shape[:2]).astype(np.float32) if gain is not None and gain.size == count else None,
            input_scale=float(self.plan.qparams_of(unit.data).scale) if integer_bias else None,
            bias_grid=None if shared else own,
            pool=frontier.pool,
        )

    def _recipe(self, unit: Unit, samples: int, kept: int, *, movable: bool) -> TuningSettings:
        o, site = self.options, self.plan.sites[unit.weight]
        names = ("learning_rate", "lr_adjust", "early_stop", "window", "objective")
        names += ("polish", "ridge", *(("reg_param", "beta_range", "warm_start") if isinstance(o, AdaRound) else ()))
        return TuningSettings(
            method=o.algorithm,
            absolute=o.rate_is_absolute,
            batch=o.batch_rows(kept, samples),
            seed=(o.seed, self.numbers[unit.node.name or ""]),
            num_iterations=o.steps(site.format.bits),
            scale_search=o.scale_search and site.range is None,  # a scale that is given stays
            factors=all_factors(site.format, o.num_candidates) if isinstance(o, Nearest) else factors_for(site.format),
            update_bias=movable and o.update_bias,
            **{name: getattr(o, name) for name in names},
        )

    def _changed(self, unit: Unit, tuned: Tuned) -> Plan:
        """The plan with the tuned weight and bias; the very plan if they are as they were."""
        if not tuned.accepted:
            return self.plan
        moved = {unit.bias: tuned.bias} if unit.bias and self._moves(unit) and tuned.bias is not None else {}
        return self._with(unit, tuned, moved)

    def _shared(self, uses: Sequence[tuple[Unit, LayerData]], tuned: Tuned) -> Plan:
        """The plan with a weight that several layers read, tuned without their biases, and these biases moved.

        To each is added what the rounding of the weight shifts its output by, where held-out samples agree.
        """
        weight = tuned.codes * tuned.scale[..., None]
        moved = {}
        for use, data in uses:
            if use.bias is None or not self._moves(use):
                continue
            held = (data.train if data.held is None else data.held).moments
            shift = data.train.fitter.bias(weight).astype(np.float32)
            if (own := bias_grid(self.plan, use.bias)) is not None:
                before = self._bias(use, weight)
                shift = own.nearest(before + shift) - own.nearest(before)
            helps = held.loss(with_bias(weight, shift)) < held.loss(with_bias(weight, 0 * shift))
            if helps.any():
                moved[use.bias] = self._bias(use, weight) + np.where(helps, shift, 0)
        after = self._with(uses[0][0], tuned, moved) if tuned.accepted or moved else self.plan
        return after if all(self._fits(use, after) for use, _ in uses) else self.plan

    def _moves(self, unit: Unit) -> bool:
        return unit.movable and self.options.update_bias

    def _with(self, unit: Unit, tuned: Tuned, moved: Mapping[str, Array]) -> Plan:
        """The plan with codes, if weights are tuned and these were, and values (G, R) for biases."""
        codes, o = dict(self.plan.codes), self.options
        if tuned.accepted and (o.scale_search or not isinstance(o, Nearest)):
            original, q = self._float(unit.weight), self.plan.qparams_of(unit.weight)
            whole, scale = coded(tuned.codes, tuned.scale, q, tuned.scale.shape)
            codes[unit.weight] = Coded(unit.geometry.weight(whole, original), scale)
        values = dict(self.plan.values)
        for name, value in moved.items():
            values[name] = like_bias(value, self._float(name))
        return replace(self.plan, codes=codes, values=values)

    def _fits(self, unit: Unit, after: Plan) -> bool:
        """Whether an int32 bias fits at the scale of the weight; `tune` sees to it where there is one layer."""
        if unit.bias is None or unit.bias not in after.sites or bias_grid(after, unit.bias) is not None:
            return True
        shape = unit.geometry.rows(self._float(unit.weight)).shape[:2]
        grid = grid_of(after.qparams_of(unit.weight), after.sites[unit.weight].format, shape)
        step = after.qparams_of(unit.data).scale * grid.scale
        value = after.values.get(unit.bias, self._float(unit.bias)).reshape(-1)
        return bool((np.abs(np.broadcast_to(value, (step.size,)).reshape(shape)) <= step * LIMIT).all())

    def _helps(self, after: Plan) -> bool:
        """Whether the whole model gets better, where that is asked for."""
        if self.judge is None:
            return True
        if self.score == -math.inf:
            self.score = self.judge(self.plan)
        score = self.judge(after)
        if score <= self.score:
            return False
        self.score = score
        return True


def _sum(parts: Sequence[LayerData]) -> LayerData:
    train, held = parts[0].train, parts[0].held
    for part in parts[1:]:
        train = train + part.train
        held = held + part.held if held is not None and part.held is not None else None
    return LayerData(train, held)


def _interval(activation: Activation) -> tuple[float, float] | None:
    """Where the activation lets errors through, a little wider: rounding may push a value in."""
    low, high = activation.active
    return activation.region(0.05 * (high - low) if math.isfinite(high - low) else 0.0)


def _record(node: Node, tuned: Tuned, accepted: bool, seconds: float) -> LayerRecord:
    losses = (tuned.loss_before, tuned.loss_after, tuned.held_before, tuned.held_after)
    return LayerRecord(node.name or "", node.op_type, tuned.choice, accepted, tuned.iterations, seconds, *losses)


def _decibel(tuned: Tuned) -> str:
    """SQNR on the held-out samples, before and after."""
    before, after = (
        10 * math.log10(tuned.signal / loss) if loss > 0 and tuned.signal > 0 else math.inf
        for loss in (tuned.held_before, tuned.held_after)
    )
    return f"{before:.1f} → {after:.1f} dB ({tuned.choice})"
