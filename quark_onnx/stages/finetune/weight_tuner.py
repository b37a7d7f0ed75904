"""What is better for the weight of a layer, and for its bias with it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Site, Skip
from quark_onnx.core.settings.fast_finetune import GPTQ, AdaRound, Nearest
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.layers.row_grids import all_factors, bias_grid, factors_for, grid_of, rounded_rows
from quark_onnx.engine.tuning_walk import Found
from quark_onnx.graph import Node
from quark_onnx.numerics.activation_functions import Activation
from quark_onnx.numerics.layer.held_out_split import LayerData
from quark_onnx.numerics.layer.tune import Tuned, tune
from quark_onnx.numerics.parallel_blocks import row_blocks
from quark_onnx.numerics.rounding.settings import TuningSettings
from quark_onnx.stages.finetune.layer_statistics import KEPT, float_bias, layer_data, summed
from quark_onnx.stages.finetune.plan_changes import Changes
from quark_onnx.stages.finetune.tuned_layers import TunedLayers

Array = NDArray[Any]


@dataclass
class WeightTuner:
    """Tunes weights; keeps the data of those that are still to be read by other layers."""

    layers: TunedLayers
    waiting: dict[str, list[tuple[Unit, LayerData]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers = Counter(unit.weight for unit in self.layers.units.values())

    def __call__(self, node: Node, frontier: Frontier, plan: Plan) -> Found | Skip | None:
        """What is better for the layer, or nothing yet until the last layer with the same weight comes."""
        model, options = self.layers.model, self.layers.options
        unit, number = self.layers.of(node)
        shared = self.readers[unit.weight] > 1
        data, samples = layer_data(model, plan, unit, frontier, options, number, shared=shared)
        if isinstance(data, Skip):
            self.waiting.pop(unit.weight, None)
            return data
        self.waiting.setdefault(unit.weight, []).append((unit, data))
        if len(self.waiting[unit.weight]) < self.readers[unit.weight]:
            return None
        uses = self.waiting.pop(unit.weight)
        tuned = self._tune(unit, plan, summed([data for _, data in uses]), shared, samples, frontier)
        changes = Changes(model, plan, options)
        return Found(
            changes.of_several(uses, tuned) if shared else changes.of_one(unit, tuned),
            tuple(use.node for use, _ in uses),
            tuned.choice if tuned.accepted else "untuned",
            (tuned.loss_before, tuned.loss_after),
            (tuned.held_before, tuned.held_after),
            tuned.iterations,
            tuned.signal,
        )

    def _tune(self, unit: Unit, plan: Plan, data: LayerData, shared: bool, samples: int, frontier: Frontier) -> Tuned:
        model = self.layers.model
        weight = unit.geometry.rows(float_of(model, unit.weight))
        site, q = plan.sites[unit.weight], plan.qparams_of(unit.weight)
        own = bias_grid(plan, unit.bias)
        integer_bias = unit.bias in plan.sites and own is None and not shared
        gain = self.layers.gain(unit, weight.shape)
        return tune(
            weight,
            None if shared or unit.bias is None else float_bias(model, unit, weight.shape),
            data,
            grid_of(q, site.format, unit.geometry, weight.shape),
            self._settings(unit, site, samples, shared),
            codes=rounded_rows(plan, unit, q),
            activation=Activation() if shared else unit.activation,
            gain=None if gain is None else gain.astype(np.float32),
            input_scale=float(plan.qparams_of(unit.data).scale) if integer_bias else None,
            bias_grid=None if shared else own,
            pool=self._pool(site, weight.shape) or frontier.pool,
        )

    def _pool(self, site: Site, shape: tuple[int, ...]) -> Executor | None:
        """That for rows of a weight, where several blocks of them are learned: to send these takes less time."""
        learned = self.layers.options.steps(site.format.bits) > 0 and len(row_blocks(shape)) > 1
        return self.layers.rows if learned else None

    def _settings(self, unit: Unit, site: Site, samples: int, shared: bool) -> TuningSettings:
        o = self.layers.options
        free = o.scale_search and site.range is None  # a scale that is given stays
        names: tuple[str, ...] = ("learning_rate", "lr_adjust", "early_stop", "window", "quick")
        names += ("polish", "ridge", *(("reg_param", "beta_range", "warm_start") if isinstance(o, AdaRound) else ()))
        names += ("act_order",) if isinstance(o, GPTQ) else ()
        return TuningSettings(
            method=o.algorithm,
            objective="moments" if shared else o.objective,  # of layers that are seen together no positions are kept
            absolute=o.rate_is_absolute,
            batch=o.batch_rows(KEPT, samples),
            seed=(o.seed, self.layers.of(unit.node)[1]),
            num_iterations=o.steps(site.format.bits),
            scale_search=free,
            fit_scale=free and site.format.scale == "float",
            factors=all_factors(site.format, o.num_candidates) if isinstance(o, Nearest) else factors_for(site.format),
            update_bias=unit.movable and not shared and o.update_bias,
            **{name: getattr(o, name) for name in names},
        )
