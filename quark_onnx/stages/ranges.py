"""Ranges: statistics and weights in, scales and zero points out. Fills `Plan.qparams`; the graph is only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.plan import Ends, Plan, QParams, Site
from quark_onnx.graph import Model
from quark_onnx.graph.view import constant
from quark_onnx.numerics import bias
from quark_onnx.numerics.observers import Statistics
from quark_onnx.numerics.quant import qparams
from quark_onnx.numerics.ranges import minmax, percentile, why_unusable

Arrays = Mapping[str, NDArray[Any]]


def observed_tensors(plan: Plan) -> list[str]:
    """The activations whose statistics `choose_ranges` needs: one per group, none where the range is known."""
    leaders = {site.group for site in plan.sites.values() if site.role == "activation"}
    return [t for t, site in plan.sites.items() if t in leaders and site.role == "activation" and site.range is None]


def choose_ranges(model: Model, plan: Plan, statistics: Mapping[str, Statistics], config: QuantizationConfig) -> Plan:
    """The plan with a scale and zero point for every group; what no range can be found for is left float.

    Args:
        statistics: of each of `observed_tensors`.
    """
    arrays = _constants(model, plan)
    statistics = dict(statistics) | {
        t: Statistics.of(arrays[t]) for t, site in plan.sites.items() if site.role == "constant"
    }
    leaders = plan.sites  # of groups whose other members stay quantized a leader may be dropped here
    plan = plan.without(_unusable(plan, statistics, arrays))
    chosen: dict[str, QParams] = {}
    for tensor, site in plan.sites.items():
        if site.role == "weight":
            chosen[tensor] = qparams(*_extremes(arrays[tensor], site.format.axis), site.format)
        elif site.role != "bias" and site.group not in chosen:
            chosen[site.group] = qparams(*map(np.asarray, _range(leaders[site.group], statistics, config)), site.format)
    return _with_biases(replace(plan, qparams=chosen), arrays)


def _constants(model: Model, plan: Plan) -> dict[str, NDArray[Any]]:
    initializers = model.graph.initializers
    found = {t: constant(initializers[t]) for t, site in plan.sites.items() if site.role != "activation"}
    return {tensor: array for tensor, array in found.items() if array is not None}


def _unusable(plan: Plan, statistics: Mapping[str, Statistics], arrays: Arrays) -> dict[str, str]:
    """Groups that cannot be quantized, with the reason."""
    reasons = {}
    for tensor, site in plan.sites.items():
        if site.role in ("weight", "bias"):
            reason = None if np.isfinite(arrays[tensor]).all() else "holds infinite or NaN values"
        elif tensor in statistics and site.range is None:
            reason = why_unusable(statistics[tensor], site.format.hi - site.format.lo + 1)
        else:
            reason = None
        if reason is not None:
            reasons[site.group] = f"{tensor!r}: {reason}"
    return reasons


def _range(site: Site, statistics: Mapping[str, Statistics], config: QuantizationConfig) -> tuple[Ends, Ends]:
    if site.range is not None:
        return site.range
    seen = statistics[site.tensor]
    if site.role == "constant" or config.calibrate_method == "MinMax":
        return minmax(seen)
    return percentile(seen, config.option("Percentile"), config.activation_ranging.symmetric)


def _extremes(weight: NDArray[Any], axis: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    return weight.min(axis=others, initial=0.0), weight.max(axis=others, initial=0.0)


def _with_biases(plan: Plan, arrays: Arrays) -> Plan:
    """Raise weight scales until every bias fits into int32, or leave the layer float where that would cost accuracy."""
    chosen = dict(plan.qparams)
    remarks = dict(plan.remarks)
    reasons = {}
    for tensor, site in plan.sites.items():
        if site.role != "bias":
            continue
        x, w = (plan.sites[factor] for factor in site.factors)
        # a weight that several layers share may have been raised for one of them already: `chosen` holds the latest
        sx, q = chosen[x.group].scale, chosen[w.group]
        raised = bias.raised_scale(arrays[tensor], sx, q.scale, groups=_groups(arrays, tensor, w))
        if raised is None:
            continue
        factor = float(np.max(raised / q.scale))
        terms = arrays[w.tensor].size // max(q.scale.size, arrays[tensor].size)
        if bias.raise_costs_accuracy(factor, terms, x.format):
            reasons[site.group] = f"{tensor!r}: the bias does not fit into int32 at these scales"
            continue
        chosen[w.group] = QParams(raised, q.zero_point)
        remarks[w.tensor] = f"scale raised up to {factor:.3g} times so that the bias {tensor!r} fits into int32"
    return replace(plan, qparams=chosen, remarks=remarks).without(reasons)


def _groups(arrays: Arrays, tensor: str, weight: Site) -> int:
    """How many times the channels of a per-channel weight repeat along the bias (grouped ConvTranspose)."""
    if weight.format.axis is None:
        return 1
    return max(1, int(arrays[tensor].size) // int(arrays[weight.tensor].shape[weight.format.axis]))
