"""Ranges: statistics and weights in, scales and zero points out. Fills `Plan.qparams`; the graph is only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Ends, Plan, QParams, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.range_methods import Ranging
from quark_onnx.graph import Model
from quark_onnx.graph.large_weights import let_go
from quark_onnx.graph.view import constant
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.quantizer import ends, qparams, reaching, scale_shape
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.distribution import Distribution
from quark_onnx.numerics.ranges.half_quadratic import half_quadratic
from quark_onnx.numerics.ranges.masks_and_infinities import why_unusable
from quark_onnx.numerics.ranges.methods import find_range

Arrays = Mapping[str, NDArray[Any]]

ONLY_EXTREMES = ("MinMax", "NonOverflow")
"""Methods that take the smallest and the largest value."""

EXACT = 10**5
"""Most weights under one scale that range methods look at one by one; of more, at a histogram with bins of 0.8 %."""


def observed_tensors(plan: Plan) -> list[str]:
    """The activations whose statistics `choose_ranges` needs: one per group, none where the range is known."""
    leaders = {site.group for site in plan.sites.values() if site.role == "activation"}
    return [t for t, site in plan.sites.items() if t in leaders and site.role == "activation" and site.range is None]


def decided_by_largest(plan: Plan, config: QuantizationConfig) -> dict[str, float]:
    """Of the observed tensors those whose range their largest magnitudes decide, with the percentage that it keeps."""
    how = config.activation_ranging
    if how.method not in ONLY_EXTREMES and (how.method != "Percentile" or not how.symmetric):
        return {}
    percent = how.percentile if how.method == "Percentile" else 100.0
    joined = {site.group for site in plan.sites.values() if site.role == "constant"}
    seen = {tensor: plan.sites[tensor] for tensor in observed_tensors(plan)}
    return {t: percent for t, site in seen.items() if t not in joined and site.method is None and site.floor is None}


def choose_ranges(model: Model, plan: Plan, statistics: Mapping[str, Statistics], config: QuantizationConfig) -> Plan:
    """The plan with a scale and zero point for every group; what no range can be found for is left float.

    Args:
        statistics: of each of `observed_tensors`.
    """
    arrays = _constants(model, plan)
    statistics = _with_constants(plan, statistics, arrays)
    leaders = plan.sites  # of groups whose other members stay quantized a leader may be dropped here
    plan = plan.without(_unusable(plan, statistics, arrays))
    chosen: dict[str, QParams] = {}
    for tensor, site in plan.sites.items():
        if site.role == "weight" or _has_own_scale(site):
            chosen[tensor] = qparams(*_constant_range(site, arrays[tensor], config), site.format)
        elif site.role in ("activation", "constant") and site.group not in chosen:
            lo, hi = _range(leaders[site.group], statistics, config)
            chosen[site.group] = qparams(np.asarray(lo), np.asarray(hi), site.format)
    found = _with_biases(replace(plan, qparams=chosen), arrays)
    for tensor in arrays:
        let_go(model.graph.initializers[tensor].const_value)
    return found


def _has_own_scale(site: Site) -> bool:
    """Whether it is a bias whose scale is not the product of those of input and weight."""
    return site.role == "bias" and site.format.bits != 32


def _constants(model: Model, plan: Plan) -> dict[str, NDArray[Any]]:
    initializers = model.graph.initializers
    roles = ("constant", "weight", "bias")
    found = {t: constant(initializers[t]) for t, site in plan.sites.items() if site.role in roles}
    return {tensor: array for tensor, array in found.items() if array is not None}


def _with_constants(plan: Plan, statistics: Mapping[str, Statistics], arrays: Arrays) -> dict[str, Statistics]:
    """The statistics, and those of constants. A leader that was seen to hold less than a constant of its group, such as
    the first state of an LSTM, counts its values as well: they are exact data, nothing of them is clipped.
    """
    found = dict(statistics)
    for tensor, site in plan.sites.items():
        if site.role != "constant":
            continue
        found[tensor] = own = Statistics.of(arrays[tensor])
        lead = statistics.get(site.group)
        if lead is not None and site.range is None and (own.lo < lead.lo or own.hi > lead.hi):
            found[site.group] += own
    return found


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
    """Of an activation, or of a constant that is read as one: that one is exact data, nothing is clipped unasked."""
    if site.range is not None:
        return site.range
    exact = site.role == "constant"
    how = config.ranging("MinMax", observed=False) if exact else config.activation_ranging
    how = how if site.method is None else config.ranging(site.method, observed=not exact)
    seen = Distribution.of(statistics[site.tensor])
    lo, hi = find_range(seen if site.floor is None else seen.above(site.floor), site.format, how)
    lo = lo if site.low is None else site.low
    if site.floor is not None and lo <= site.floor:
        lo = reaching(site.floor, hi, site.format)
    if exact:
        return lo, hi
    asked = config.option("MinimumRealRange")
    least = config.row.minimum_range if asked is None else float(asked)
    return lo, max(hi, lo + least)


def _constant_range(site: Site, array: NDArray[Any], config: QuantizationConfig) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of a weight, or of a bias with a scale of its own: one per scale of its format."""
    if site.range is not None:
        lo, hi = (np.broadcast_to(end, scale_shape(array.shape, site.format)) for end in site.range)
        return lo, hi
    how = config.weight_ranging if site.role == "weight" else config.ranging("MinMax", observed=False)
    how = how if site.method is None else config.ranging(site.method, observed=False)
    return weight_range(array, site.format, how)


def weight_range(weight: NDArray[Any], format: Format, how: Ranging) -> tuple[NDArray[Any], NDArray[Any]]:
    """(lo, hi) of an array's values: scalars, one per channel, or one per block.

    Blocks have the array's shape with ⌈size / block⌉ entries along the axis, as in `numerics.quantizer.along`.
    """
    if how.method in ONLY_EXTREMES:
        return _extremes(weight, format)
    if how.method == "HQQ":
        return half_quadratic(weight, format)
    axis = format.axis
    if axis is None:
        lo, hi = find_range(_seen(weight), format, how)
        return np.asarray(lo), np.asarray(hi)
    lines = np.moveaxis(weight, axis, 0)
    step = format.block or lines.shape[0]
    shape = (-(-lines.shape[0] // step), *lines.shape[1:]) if format.block else lines.shape[:1]
    pieces = [lines[i : i + step] for i in range(0, lines.shape[0], step)]
    rows = (row for piece in pieces for row in (piece.reshape(piece.shape[0], -1).T if format.block else piece))
    found = np.array([find_range(_seen(row), format, how) for row in rows]).reshape(*shape, 2)
    found = np.moveaxis(found, 0, axis) if format.block else found
    return found[..., 0], found[..., 1]


def _extremes(weight: NDArray[Any], format: Format) -> tuple[NDArray[Any], NDArray[Any]]:
    axis = format.axis
    if axis is not None and format.block:
        starts = range(0, weight.shape[axis], format.block)
        return np.minimum.reduceat(weight, starts, axis), np.maximum.reduceat(weight, starts, axis)
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    return weight.min(axis=others, initial=0.0), weight.max(axis=others, initial=0.0)


def _seen(values: NDArray[Any]) -> Distribution:
    return Distribution.of_values(values) if values.size <= EXACT else Distribution.of(Statistics.of(values))


def _with_biases(plan: Plan, arrays: Arrays) -> Plan:
    """Raise weight scales until every bias fits into int32, or leave the layer float where that would cost accuracy.

    A scale that is given is not raised.
    """
    chosen = dict(plan.qparams)
    remarks = dict(plan.remarks)
    reasons = {}
    for tensor, site in plan.sites.items():
        if site.role != "bias" or _has_own_scale(site):
            continue
        x, w = (plan.sites[factor] for factor in site.factors)
        # a weight that several layers share may have been raised for one of them already: `chosen` holds the latest
        sx, q = chosen[x.group].scale, chosen[w.group]
        raised = integer_bias.raised_scale(arrays[tensor], sx, q.scale, groups=_groups(arrays, tensor, w))
        if raised is None:
            continue
        factor = float(np.max(raised / q.scale))
        terms = arrays[w.tensor].size // max(q.scale.size, arrays[tensor].size)
        if w.range is not None or integer_bias.raise_costs_accuracy(factor, terms, x.format):
            reasons[site.group] = f"{tensor!r}: the bias does not fit into int32 at these scales"
            continue
        chosen[w.group] = qparams(*ends(QParams(raised, q.zero_point), w.format), w.format)
        remarks[w.tensor] = f"scale raised up to {factor:.3g} times so that the bias {tensor!r} fits into int32"
    return replace(plan, qparams=chosen, remarks=remarks).without(reasons)


def _groups(arrays: Arrays, tensor: str, weight: Site) -> int:
    """How many times the channels of a per-channel weight repeat along the bias (grouped ConvTranspose)."""
    if weight.format.axis is None:
        return 1
    return max(1, int(arrays[tensor].size) // int(arrays[weight.tensor].shape[weight.format.axis]))
