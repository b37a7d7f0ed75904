"""What happens at one layer: its data, its new weight and bias, and whether the plan takes them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.records import LayerRecord
from quark_onnx.core.settings.fast_finetune import AdaRound, FastFinetune, Nearest
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import float_of, like_bias
from quark_onnx.engine.layers.row_grids import all_factors, bias_grid, codes_of, factors_for, grid_of, rounded_rows
from quark_onnx.graph import Model, Node
from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.held_out_split import LayerData, held_out
from quark_onnx.numerics.layer.tune import Tuned, tune
from quark_onnx.numerics.quantizer import dequantize
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.stages.finetune.bias_fit import fitted_bias
from quark_onnx.stages.finetune.layer_statistics import KEPT, float_bias, layer_data, summed
from quark_onnx.stages.finetune.normalizations import NormUnit, fit_line
from quark_onnx.stages.finetune.plan_changes import Changes

Array = NDArray[Any]
Tell = Callable[[str, int, int], None]


@dataclass
class LayerTuner:
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
        if isinstance(self.options, Nearest) and not self.options.scale_search:
            return self._visit_bias(self.units[node.name or ""], frontier)
        start = time.perf_counter()
        unit = self.units[node.name or ""]
        self.tell(node.name or "", self.done, len(self.units))
        shared = self.readers[unit.weight] > 1
        data, samples = layer_data(
            self.model, self.plan, unit, frontier, self.options, self.numbers[node.name or ""], shared=shared
        )
        self.done += 1
        if isinstance(data, Skip):
            self._give_up(unit, data.reason)
            return self.plan
        self.waiting.setdefault(unit.weight, []).append((unit, data))
        if len(self.waiting[unit.weight]) < self.readers[unit.weight]:
            return self.plan
        uses = self.waiting.pop(unit.weight)
        tuned = self._tune(unit, summed([data for _, data in uses]), shared, samples, frontier)
        changes = Changes(self.model, self.plan, self.options)
        after = changes.of_several(uses, tuned) if shared else changes.of_one(unit, tuned)
        accepted = after is not self.plan and self._helps(after)
        self.plan = after if accepted else self.plan
        if accepted and not tuned.accepted:
            tuned = tuned._replace(choice="untuned")
        seconds = round(time.perf_counter() - start, 4)
        self.records += [_record(use.node, tuned, accepted, seconds) for use, _ in uses]
        self.tell(f"{node.name}: {_decibel(tuned)}", self.done, len(self.units))
        return self.plan

    def _visit_bias(self, unit: Unit, frontier: Frontier) -> Plan:
        """Fit the bias of a layer whose weight stays, kept if the held-out samples gain."""
        start, name = time.perf_counter(), unit.node.name or ""
        self.tell(name, self.done, len(self.units))
        gain = self.gains.get(unit.node.outputs[0].name or "")
        found = fitted_bias(self.model, self.plan, unit, frontier, self.options, gain, self.numbers[name])
        self.done += 1
        if isinstance(found, Skip):
            self.reasons[name] = found.reason
            return self.plan
        assert unit.bias is not None
        value = like_bias(found.bias, float_of(self.model, unit.bias))
        after = replace(self.plan, values={**self.plan.values, unit.bias: value})
        accepted = found.accepted and self._helps(after)
        self.plan = after if accepted else self.plan
        seconds = round(time.perf_counter() - start, 4)
        choice = "untuned" if found.accepted else "raw"
        self.records.append(LayerRecord(name, unit.node.op_type, choice, accepted, 0, seconds, *found[2:]))
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
        line = fit_line(unit, float_of(self.model, unit.scale), float_of(self.model, unit.bias), x, z, held)
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

    def _tune(self, unit: Unit, data: LayerData, shared: bool, samples: int, frontier: Frontier) -> Tuned:
        weight = unit.geometry.rows(float_of(self.model, unit.weight))
        site, q = self.plan.sites[unit.weight], self.plan.qparams_of(unit.weight)
        own = bias_grid(self.plan, unit.bias)
        integer_bias = unit.bias in self.plan.sites and own is None and not shared
        gain = self.gains.get(unit.node.outputs[0].name or "")
        count = weight.shape[0] * weight.shape[1]
        return tune(
            weight,
            None if shared or unit.bias is None else float_bias(self.model, unit, weight.shape),
            data,
            grid_of(q, site.format, weight.shape[:2]),
            self._settings(unit, samples, KEPT, movable=unit.movable and not shared),
            codes=rounded_rows(self.plan, unit, q),
            activation=Activation() if shared else unit.activation,
            gain=gain.reshape(weight.shape[:2]).astype(np.float32) if gain is not None and gain.size == count else None,
            input_scale=float(self.plan.qparams_of(unit.data).scale) if integer_bias else None,
            bias_grid=None if shared else own,
            pool=frontier.pool,
        )

    def _settings(self, unit: Unit, samples: int, kept: int, *, movable: bool) -> TuningSettings:
        o, site = self.options, self.plan.sites[unit.weight]
        free = o.scale_search and site.range is None  # a scale that is given stays
        names = ("learning_rate", "lr_adjust", "early_stop", "window", "objective")
        names += ("polish", "ridge", *(("reg_param", "beta_range", "warm_start") if isinstance(o, AdaRound) else ()))
        return TuningSettings(
            method=o.algorithm,
            absolute=o.rate_is_absolute,
            batch=o.batch_rows(kept, samples),
            seed=(o.seed, self.numbers[unit.node.name or ""]),
            num_iterations=o.steps(site.format.bits),
            scale_search=free,
            fit_scale=free and site.format.scale == "float",
            factors=all_factors(site.format, o.num_candidates) if isinstance(o, Nearest) else factors_for(site.format),
            update_bias=movable and o.update_bias,
            **{name: getattr(o, name) for name in names},
        )

    def _helps(self, after: Plan) -> bool:
        """Whether the whole model gets no worse, where that is asked for."""
        if self.judge is None:
            return True
        if self.score == -math.inf:
            self.score = self.judge(self.plan)
        score = self.judge(after)
        if score < self.score:
            return False
        self.score = score
        return True


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
