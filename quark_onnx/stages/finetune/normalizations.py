"""Scale and bias of normalizations: per channel a line through what the quantized model feeds them.

y = γ n(x) + β in the float model;  γ', β' minimize Σ (y − γ' n(z) − β')² over all positions of the channel
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, Skip
from quark_onnx.core.settings.fast_finetune import AdaQuant, FastFinetune
from quark_onnx.engine.activation_walk import Frontier
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.layers.row_grids import codes_of
from quark_onnx.engine.tuning_walk import Found
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import constant, input_at, is_op, rank
from quark_onnx.numerics.layer.held_out_split import held_out
from quark_onnx.numerics.quantizer import dequantize

Array = NDArray[Any]

NORMS = ("LayerNormalization", "InstanceNormalization")


@dataclass(frozen=True, eq=False)
class NormUnit:
    """A normalization whose scale and bias can move; `channel_last` tells LayerNormalization from the other."""

    node: Node
    data: str
    scale: str
    bias: str
    epsilon: float
    channel_last: bool


@dataclass(frozen=True, eq=False)
class Line:
    """The fitted scale and bias, and the mean squared errors before and after, on training and held-out samples."""

    scale: Array
    bias: Array
    loss_before: float
    loss_after: float
    held_before: float
    held_after: float


def norm_unit(node: Node) -> NormUnit | Skip:
    """The normalization as something to tune, or why it cannot be."""
    scale, bias = input_at(node, 1), input_at(node, 2)
    if scale is None or bias is None or constant(scale) is None or constant(bias) is None:
        return Skip("scale or bias is missing or computed at run time")
    if len(scale.uses()) > 1 or len(bias.uses()) > 1 or len(node.outputs) > 1:
        return Skip("scale, bias or statistics are read by others")
    data = node.inputs[0]
    axis = node.attributes.get_int("axis", -1)
    last = node.op_type == "LayerNormalization"
    if last and axis != -1 and axis != (rank(data) or 0) - 1:
        return Skip("normalizes over more than the last axis")
    assert data is not None
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return NormUnit(node, data.name or "", scale.name or "", bias.name or "", epsilon, last)


def match_norms(model: Model, plan: Plan, options: FastFinetune) -> tuple[dict[str, NormUnit], dict[str, str]]:
    """Normalizations that AdaQuant fits, those left out with the reason. AdaRound rounds weights, these have none."""
    if not isinstance(options, AdaQuant) or not options.update_bias:
        return {}, {}
    units: dict[str, NormUnit] = {}
    reasons: dict[str, str] = {}
    for node in model.graph:
        if not is_op(node, *[kind for kind in NORMS if kind in options.target_op_type]):
            continue
        found = norm_unit(node)
        if isinstance(found, Skip):
            reasons[node.name or ""] = found.reason
        elif found.scale not in plan.values:  # a resumed run has it already
            units[node.name or ""] = found
    return units, reasons


@dataclass(frozen=True)
class NormFit:
    """Fits scales and biases of normalizations."""

    model: Model
    units: Mapping[str, NormUnit]
    options: FastFinetune

    def __call__(self, node: Node, frontier: Frontier, plan: Plan) -> Found | Skip:
        """The plan with scale and bias that held-out samples gain by, or why they cannot be fitted."""
        unit = self.units[node.name or ""]
        x, z = frontier.read(node, unit.data, plan)
        if (q := codes_of(plan, node, unit.data)) is not None:
            z = [dequantize(s, q, plan.sites[unit.data].format) for s in z]
        if not all(a.size and a.shape == b.shape and np.isfinite(a).all() for a, b in zip(x, z, strict=True)):
            return Skip("its input is empty, not finite, or of another shape when quantized")
        held = held_out(len(x), self.options.holdout, self.options.seed)
        line = fit_line(unit, float_of(self.model, unit.scale), float_of(self.model, unit.bias), x, z, held)
        after = replace(plan, values={**plan.values, unit.scale: line.scale, unit.bias: line.bias})
        losses, judged = (line.loss_before, line.loss_after), (line.held_before, line.held_after)
        return Found(after if judged[1] < judged[0] else plan, (node,), "tuned", losses, judged, iterations=1)


def fit_line(unit: NormUnit, scale: Array, bias: Array, x: list[Array], z: list[Array], held: Array) -> Line:
    """Least squares per channel on the samples that are not held out.

    Args:
        scale, bias: (C,) of the float model.
        x, z: the input in the float and in the quantized model, sample by sample (batches are fine).
        held: (len(x),) bool.
    """
    sums = [np.zeros((6, scale.size)), np.zeros((6, scale.size))]
    for one, other, aside in zip(x, z, held, strict=True):
        y = _normalized(unit, one) * scale.astype(np.float64) + bias
        sums[int(aside)] += _moments(y, _normalized(unit, other))
    train, judge = sums[0], sums[1] if held.any() else sums[0]
    n, sy, sn, syn, snn, _ = train
    variance = snn / n - (sn / n) ** 2
    slope = np.where(variance > 1e-12, (syn / n - sy * sn / n**2) / np.maximum(variance, 1e-12), scale)
    offset = (sy - slope * sn) / n
    before = [_loss(part, scale.astype(np.float64), bias.astype(np.float64)) for part in (train, judge)]
    after = [_loss(part, slope, offset) for part in (train, judge)]
    return Line(slope.astype(scale.dtype), offset.astype(bias.dtype), before[0], after[0], before[1], after[1])


def _normalized(unit: NormUnit, sample: Array) -> Array:
    """(positions, C) normalized values in float64."""
    values = sample.astype(np.float64)
    axes = (-1,) if unit.channel_last else tuple(range(2, values.ndim))
    centred = values - values.mean(axes, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + unit.epsilon)
    last: Array = normal if unit.channel_last else np.moveaxis(normal, 1, -1)
    return last.reshape(-1, last.shape[-1])


def _moments(y: Array, n: Array) -> Array:
    """(6, C): count, Σy, Σn, Σyn, Σn², Σy²."""
    rows: Iterable[Array] = (
        np.full(y.shape[1], len(y)),
        y.sum(0),
        n.sum(0),
        (y * n).sum(0),
        (n * n).sum(0),
        (y * y).sum(0),
    )
    return np.stack(list(rows))


def _loss(sums: Array, slope: Array, offset: Array) -> float:
    """Mean over positions, summed over channels, of (y − slope·n − offset)²."""
    n, sy, sn, syn, snn, syy = sums
    total = syy + slope**2 * snn + n * offset**2 - 2 * slope * syn - 2 * offset * sy + 2 * slope * offset * sn
    return float(np.maximum(total / n, 0).sum())
