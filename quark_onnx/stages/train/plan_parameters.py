"""What is trained of a plan, and where it begins."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant
from quark_onnx.numerics.layer.integer_bias import OwnGrid
from quark_onnx.numerics.quantizer import along, quantize
from quark_onnx.stages.train.latent_biases import LatentBias
from quark_onnx.stages.train.latent_scales import LatentScale
from quark_onnx.stages.train.latent_weights import Grid, LatentWeight, StraightThrough, soft
from quark_onnx.stages.train.parameters import Inputs, Parameters, Weight
from quark_onnx.stages.train.safe_codes import roundings

Array = NDArray[Any]

SMALL = 0.01
"""The unit of a bias that is 0 everywhere and says nothing of its layer."""


def parameters(model: Model, plan: Plan, inputs: Inputs, settings: QAT) -> Parameters:
    """What is trained of a plan.

    Args:
        model: the prepared float model.
        inputs: of the training graph.
    """
    made = _Made(model, plan, settings)
    taught = inputs.gradients.keys()
    ranges = {group: made.range(group, name in taught) for group, name in inputs.scales.items()}
    weights = {tensor: made.weight(tensor, name in taught) for tensor, name in inputs.weights.items()}
    biases = {tensor: made.bias(tensor, name in taught) for tensor, name in inputs.biases.items()}
    return Parameters(plan, inputs, weights, biases, ranges)


class _Made:
    """Makes the latent arrays of a plan, one after the other."""

    def __init__(self, model: Model, plan: Plan, settings: QAT) -> None:
        self.model, self.plan, self.settings = model, plan, settings
        self.safely = roundings(model, plan)
        sites = plan.sites.values()
        self.members = Counter(site.group for site in sites)
        self.fixed = {site.group for site in sites if site.range is not None}
        self.fixed_ranges = self.fixed | {site.group for site in sites if site.role != "activation"}
        self.formats = {site.group: site.format for site in sites}

    def range(self, group: str, taught: bool) -> LatentScale:
        """Of a group of activations: those with a range that is known beforehand, or with constants, keep it."""
        moves = taught and self.settings.activation_ranges and group not in self.fixed_ranges
        return LatentScale(self.plan.qparams[group].scale, self.formats[group], moves)

    def weight(self, tensor: str, taught: bool) -> Weight:
        """Of a weight; its scale moves if it is its own."""
        site, q = self.plan.sites[tensor], self.plan.qparams_of(tensor)
        own = self.members[site.group] == 1 and site.group not in self.fixed
        scale = LatentScale(q.scale, site.format, taught and own and self.settings.weight_scales)
        real = self._float(tensor)
        grid = Grid.of(real.shape, site.format, q.zero_point)
        moves = taught and self.settings.weights
        return Weight(self._latent(site, grid, real), grid, scale, q.zero_point, moves)

    def _latent(self, site: Site, grid: Grid, real: Array) -> LatentWeight:
        coded, q = self.plan.coded(site.tensor), self.plan.qparams_of(site.tensor)
        codes = quantize(real, q, site.format) if coded is None else coded.codes
        base = codes.astype(np.float32) - along(np.asarray(q.zero_point, np.float32), real.shape, site.format)
        steps = (real / grid.spread(q.scale)).astype(np.float32)
        rounded = self.safely.get(site.tensor, np.rint)
        if self.settings.rounding == "soft" and self.settings.weights:
            return soft(grid, base, steps, rounded)
        return StraightThrough(grid, steps if coded is None else base, rounded)

    def bias(self, tensor: str, taught: bool) -> LatentBias:
        """Of a bias: int32 at the product of two scales, on a grid of its own, or a float that has none."""
        value, site = self._float(tensor), self.plan.sites.get(tensor)
        moves = taught and self.settings.biases
        rms = float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))) or SMALL
        if site is None:
            return LatentBias(value, None, None, rms, moves)
        if has_scale(site):
            return LatentBias(value, None, OwnGrid(self.plan.qparams_of(tensor), site.format), rms, moves)
        data, weight = site.factors
        return LatentBias(value, (data, weight), None, max(rms, self._output(data, weight, value.size)), moves)

    def _output(self, data: str, weight: str, channels: int) -> float:
        """About what a layer's output varies by: independent inputs of half their range, and its weights."""
        reach = self.plan.qparams_of(data).scale * (self.plan.sites[data].format.hi - self.plan.sites[data].format.lo)
        square = np.square(self._float(weight), dtype=np.float64).sum() / channels
        return float(reach / 4 * np.sqrt(square))

    def _float(self, tensor: str) -> Array:
        found = self.plan.values.get(tensor)
        array = constant(self.model.graph.initializers[tensor]) if found is None else found
        return np.asarray(array, np.float32)
