"""What is better for the bias of a layer whose weight stays: bias correction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import float_of, like_bias
from quark_onnx.engine.layers.row_grids import bias_grid, grid_of, rounded_rows
from quark_onnx.engine.tuning_walk import Found
from quark_onnx.graph import Node
from quark_onnx.numerics.layer.bias_shift import Errors, Shifted, shift
from quark_onnx.numerics.layer.held_out_split import held_out
from quark_onnx.numerics.layer.sampling import both_sides, stride_of
from quark_onnx.numerics.rounding.weight_grid import each, nearest
from quark_onnx.stages.finetune.layer_statistics import KEPT, SINGLE, float_bias, layer_samples
from quark_onnx.stages.finetune.tuned_layers import TunedLayers


@dataclass(frozen=True)
class BiasFit:
    """Fits biases of layers whose weights stay."""

    layers: TunedLayers

    def __call__(self, node: Node, frontier: Frontier, plan: Plan) -> Found | Skip:
        """The plan with the bias that held-out samples gain by, or why the layer has none that can be fitted."""
        unit, _ = self.layers.of(node)
        if unit.bias is None or not unit.movable:
            return Skip("it has no bias of its own")
        found = self._fitted(unit, unit.bias, frontier, plan)
        if isinstance(found, Skip):
            return found
        value = like_bias(found.bias, float_of(self.layers.model, unit.bias))
        after = replace(plan, values={**plan.values, unit.bias: value}) if found.accepted else plan
        losses, held = (found.loss_before, found.loss_after), (found.held_before, found.held_after)
        return Found(after, (node,), "untuned", losses, held)

    def _fitted(self, unit: Unit, bias: str, frontier: Frontier, plan: Plan) -> Shifted | Skip:
        model, options = self.layers.model, self.layers.options
        read = layer_samples(model, plan, unit, frontier, options, shared=False)
        if isinstance(read, Skip):
            return read
        layer, samples, positions = read
        site, q = plan.sites[unit.weight], plan.qparams_of(unit.weight)
        grid = grid_of(q, site.format, unit.geometry, layer.weight.shape)
        codes = rounded_rows(plan, unit, q)
        if codes is None:
            codes = nearest(layer.weight, grid.scale, grid.low, grid.high, grid.safe_run)
        weight = codes * each(grid.scale)
        stride = stride_of(layer, samples, positions, min(KEPT, positions))
        train, held = both_sides(
            layer,
            samples,
            held_out(len(samples.x), options.holdout, options.seed),
            partial(Errors.of, layer, weight, stride=stride),
            positions=positions,
            drop_ratio=options.drop_ratio,
            seed=(options.seed, self.layers.of(unit.node)[1]),
            pool=frontier.pool,
        )
        if not all(side.finite for side in (train, held or train)):
            return Skip("the layer's input or output is not finite")
        if train.positions < 2:
            return Skip(SINGLE)
        own, steps = bias_grid(plan, bias), None
        if bias in plan.sites and own is None:
            steps = grid.scale.astype(np.float64) * float(plan.qparams_of(unit.data).scale)
        gain, start = self.layers.gain(unit, layer.weight.shape), float_bias(model, unit, layer.weight.shape)
        return shift(start, train, held, unit.activation, gain, steps=steps, grid=own)
