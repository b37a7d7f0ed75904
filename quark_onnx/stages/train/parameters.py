"""Everything that is trained, as one mapping of arrays: the state. What it stands for is what the plan will say.

    state ─ values ─▶ inputs of the training graph ─▶ gradients by them ─ slopes ─▶ gradients by the state
          ─ planned ▶  codes, scales and biases of the plan

Keys are `kind/name`: weights in units of their first scale (`latent_weights`), biases as they are, logarithms of scales
of weights and of activations (`latent_scales`). What is not trained has no key and stays as the plan has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan, QParams
from quark_onnx.numerics.quantizer import along
from quark_onnx.stages.train.latent_biases import LatentBias
from quark_onnx.stages.train.latent_scales import LatentScale
from quark_onnx.stages.train.latent_weights import Grid, LatentWeight

Array = NDArray[Any]
State = Mapping[str, Array]

WEIGHT, WEIGHT_SCALE, BIAS, RANGE = "weight/", "weight_scale/", "bias/", "activation_range/"
"""Kinds of keys of a state."""


class Inputs(Protocol):
    """What of a training graph parameters look at, see `TrainingGraph`: names of inputs."""

    @property
    def weights(self) -> Mapping[str, str]: ...
    @property
    def biases(self) -> Mapping[str, str]: ...
    @property
    def scales(self) -> Mapping[str, str]: ...
    @property
    def gradients(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight, its grid, its scale and zero point (in the plan's shape)."""

    latent: LatentWeight
    grid: Grid
    scale: LatentScale
    zero_point: Array
    trained: bool

    def codes(self, state: State, tensor: str, final: bool) -> tuple[Array, Array]:
        """Codes less the zero point, and the scale they are multiplied by."""
        scale = self.scale.scale(state.get(WEIGHT_SCALE + tensor))
        v = state.get(WEIGHT + tensor, self.latent.start())
        return self.latent.codes(v, self._stretch(scale), final), scale

    def slopes(self, state: State, tensor: str, slope: Array, progress: float) -> tuple[Array, Array]:
        """Gradients of the variable, and of the logarithm of the scale."""
        scale = self.scale.scale(state.get(WEIGHT_SCALE + tensor))
        v = state.get(WEIGHT + tensor, self.latent.start())
        each = slope * self.grid.spread(scale)
        of_v, of_scale = self.latent.gradients(v, self._stretch(scale), each, progress)
        return of_v.astype(np.float32), self.grid.gathered(of_scale, scale).astype(np.float32)

    def _stretch(self, scale: Array) -> Array:
        return self.grid.spread(scale / self.scale.first)


@dataclass(frozen=True, eq=False)
class Parameters:
    """What a state stands for; `plan_parameters` makes them.

    plan    that they were made of
    inputs  of the training graph
    """

    plan: Plan
    inputs: Inputs
    weights: Mapping[str, Weight]
    biases: Mapping[str, LatentBias]
    ranges: Mapping[str, LatentScale]

    def start(self) -> dict[str, Array]:
        """The state of the plan."""
        state = {WEIGHT + tensor: one.latent.start() for tensor, one in self.weights.items() if one.trained}
        state |= {WEIGHT_SCALE + t: one.scale.start() for t, one in self.weights.items() if one.scale.trained}
        state |= {BIAS + tensor: one.first for tensor, one in self.biases.items() if one.trained}
        return state | {RANGE + group: one.start() for group, one in self.ranges.items() if one.trained}

    def units(self) -> dict[str, float]:
        """How far a step at learning rate 1 moves weights and biases of a state; logarithms have no unit."""
        units = {WEIGHT + tensor: one.latent.unit for tensor, one in self.weights.items()}
        return units | {BIAS + tensor: one.unit for tensor, one in self.biases.items()}

    def values(self, state: State, *, final: bool = True) -> dict[str, Array]:
        """Input of the training graph → what it takes: what the exported model dequantizes.

        Args:
            final: False: soft roundings are what they are while they are trained.
        """
        found = {}
        for tensor, one in self.weights.items():
            codes, scale = one.codes(state, tensor, final)
            found[self.inputs.weights[tensor]] = np.asarray(codes * one.grid.spread(scale), np.float32)
        for tensor, bias in self.biases.items():
            found[self.inputs.biases[tensor]] = bias.added(self._bias(state, tensor), self._scales(state, bias))
        for group, latent in self.ranges.items():
            found[self.inputs.scales[group]] = latent.scale(state.get(RANGE + group))
        return found

    def slopes(self, state: State, of: Mapping[str, Array], progress: float = 0.0) -> dict[str, Array]:
        """Gradients of the arrays of a state, from those of the inputs of the training graph.

        Args:
            of: input → gradient; inputs that no gradient reaches may be missing, and what stands for them has none.
            progress: how much of the training is over, 0 … 1.
        """
        found: dict[str, Array] = {}
        for tensor, one in self.weights.items():
            if (slope := of.get(self.inputs.weights[tensor])) is not None:
                found[WEIGHT + tensor], found[WEIGHT_SCALE + tensor] = one.slopes(state, tensor, slope, progress)
        for tensor, bias in self.biases.items():
            if (slope := of.get(self.inputs.biases[tensor])) is not None:
                found[BIAS + tensor] = bias.gradient(slope)
        for group, latent in self.ranges.items():
            if (slope := of.get(self.inputs.scales[group])) is not None:
                scale = latent.scale(state.get(RANGE + group))
                found[RANGE + group] = np.asarray(slope * scale, np.float32).reshape(scale.shape)
        return {key: slope for key, slope in found.items() if key in state}

    def planned(self, state: State) -> Plan:
        """The plan that a state stands for."""
        codes, values, qparams = dict(self.plan.codes), dict(self.plan.values), dict(self.plan.qparams)
        for tensor, one in self.weights.items():
            if one.trained or one.scale.trained:
                relative, scale = one.codes(state, tensor, True)
                zero = along(one.zero_point, relative.shape, one.grid.format)
                codes[tensor] = Coded((relative + zero).astype(np.int32), scale)
        for tensor, bias in self.biases.items():
            values[tensor] = bias.kept(self._bias(state, tensor), self._scales(state, bias))
        for group, latent in self.ranges.items():
            if latent.trained:
                qparams[group] = QParams(latent.scale(state[RANGE + group]), self.plan.qparams[group].zero_point)
        return replace(self.plan, codes=codes, values=values, qparams=qparams)

    def _bias(self, state: State, tensor: str) -> Array:
        found: Array = state.get(BIAS + tensor, self.biases[tensor].first)
        return found

    def _scales(self, state: State, bias: LatentBias) -> tuple[Array, Array] | None:
        """Of the activation and the weight whose product is that of an int32 bias."""
        if bias.factors is None:
            return None
        data, weight = bias.factors
        group, known = self.plan.sites[data].group, self.weights.get(weight)
        moving = self.ranges.get(group)
        of_data = self.plan.qparams_of(data).scale if moving is None else moving.scale(state.get(RANGE + group))
        if known is None:
            return of_data, self.plan.qparams_of(weight).scale
        return of_data, known.scale.scale(state.get(WEIGHT_SCALE + weight))
