"""What a tuned layer changes in the plan: codes of its weight, values of its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan
from quark_onnx.core.settings.fast_finetune import FastFinetune, Nearest
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import float_of, like_bias
from quark_onnx.engine.layers.row_grids import bias_grid, coded, grid_of
from quark_onnx.graph import Model
from quark_onnx.numerics.layer.held_out_split import LayerData
from quark_onnx.numerics.layer.integer_bias import LIMIT
from quark_onnx.numerics.layer.tune import Tuned
from quark_onnx.numerics.rounding.moments import with_bias
from quark_onnx.numerics.rounding.weight_grid import each
from quark_onnx.stages.finetune.layer_statistics import float_bias

Array = NDArray[Any]


@dataclass(frozen=True)
class Changes:
    """Makes the plan that follows `plan`; the very plan where nothing changes."""

    model: Model
    plan: Plan
    options: FastFinetune

    def of_one(self, unit: Unit, tuned: Tuned) -> Plan:
        """The plan with the tuned weight and bias; the very plan if they are as they were."""
        if not tuned.accepted:
            return self.plan
        moved = {unit.bias: tuned.bias} if unit.bias and self._moves(unit) and tuned.bias is not None else {}
        return self._with(unit, tuned, moved)

    def of_several(self, uses: Sequence[tuple[Unit, LayerData]], tuned: Tuned) -> Plan:
        """The plan with a weight that several layers read, tuned without their biases, and these biases moved.

        To each is added what the rounding of the weight shifts its output by, where held-out samples agree.
        """
        weight = tuned.codes * each(tuned.scale)
        moved = {}
        for use, data in uses:
            if use.bias is None or not self._moves(use):
                continue
            held = (data.train if data.held is None else data.held).moments
            shift = data.train.fitter.bias(weight).astype(np.float32)
            if (own := bias_grid(self.plan, use.bias)) is not None:
                before = float_bias(self.model, use, weight.shape)
                shift = own.nearest(before + shift) - own.nearest(before)
            helps = held.loss(with_bias(weight, shift)) < held.loss(with_bias(weight, 0 * shift))
            if helps.any():
                moved[use.bias] = float_bias(self.model, use, weight.shape) + np.where(helps, shift, 0)
        after = self._with(uses[0][0], tuned, moved) if tuned.accepted or moved else self.plan
        return after if all(self._fits(use, after) for use, _ in uses) else self.plan

    def _moves(self, unit: Unit) -> bool:
        return unit.movable and self.options.update_bias

    def _with(self, unit: Unit, tuned: Tuned, moved: Mapping[str, Array]) -> Plan:
        """The plan with codes, if weights are tuned and these were, and values (G, R) for biases."""
        codes, o = dict(self.plan.codes), self.options
        if tuned.accepted and (o.scale_search or not isinstance(o, Nearest)):
            original, q = float_of(self.model, unit.weight), self.plan.qparams_of(unit.weight)
            whole, scale = coded(tuned.codes, tuned.scale, q, self.plan.sites[unit.weight].format)
            codes[unit.weight] = Coded(unit.geometry.weight(whole, original), scale)
        values = dict(self.plan.values)
        for name, value in moved.items():
            values[name] = like_bias(value, float_of(self.model, name))
        return replace(self.plan, codes=codes, values=values)

    def _fits(self, unit: Unit, after: Plan) -> bool:
        """Whether an int32 bias fits at the scale of the weight; `tune` sees to it where there is one layer."""
        if unit.bias is None or unit.bias not in after.sites or bias_grid(after, unit.bias) is not None:
            return True
        shape = unit.geometry.rows(float_of(self.model, unit.weight)).shape
        grid = grid_of(after.qparams_of(unit.weight), after.sites[unit.weight].format, unit.geometry, shape)
        step = after.qparams_of(unit.data).scale * grid.scale
        value = after.values.get(unit.bias, float_of(self.model, unit.bias)).reshape(-1)
        return bool((np.abs(np.broadcast_to(value, (step.size,)).reshape(step.shape)) <= step * LIMIT).all())
