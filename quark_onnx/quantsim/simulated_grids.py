"""From the quantizers of a simulation to grids, integers and models: values in, values out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Coded, Plan, QParams, Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.engine.apply_plan import apply
from quark_onnx.engine.exact_simulation import widened
from quark_onnx.graph import Model, io
from quark_onnx.graph.attention_masks import Masks, masks_of
from quark_onnx.graph.edit import set_arrays
from quark_onnx.graph.value_info import declare_outputs
from quark_onnx.graph.view import constant
from quark_onnx.numerics.quantizer import dequantize, quantize_half_up
from quark_onnx.numerics.ranges.calibration_statistics import Statistics
from quark_onnx.numerics.ranges.masks_and_infinities import range_with_mask
from quark_onnx.quantsim.quantizer import Quantizer
from quark_onnx.quantsim.wide_grids import apart
from quark_onnx.stages.prepare import prepare
from quark_onnx.stages.ranges import choose_ranges
from quark_onnx.stages.simulated_placement import around

logger = logging.getLogger("quark_onnx")

PARAMETERS = ("weight", "bias")
"""Roles of parameters; other constants are read as activations."""

SWITCH = (-1.0, 1.0)
"""Of what a mask is made of, 1 − mask or mask − 1, where all that was seen of it is 0."""

Chosen = dict[str, QParams | None]


def choose(
    model: Model, sites: Mapping[str, Site], statistics: Mapping[str, Statistics], how: QuantizationConfig
) -> Chosen:
    """Grids by group; None, with a warning, for what cannot be quantized."""
    masks = masks_of(model.graph)
    sites = {tensor: _masked(model, site, statistics.get(tensor), masks) for tensor, site in sites.items()}
    plan = Plan("", sites, {tensor: (tensor,) for tensor in sites})  # every tensor on its own
    done = choose_ranges(model, plan, statistics, how)
    for tensor, reason in done.notes.items():
        logger.warning("%r stays float: %s", tensor, reason)
    return {site.group: done.qparams.get(site.group) for site in sites.values()}


def _masked(model: Model, site: Site, seen: Statistics | None, masks: Masks) -> Site:
    """The site, with a range of its own where the tensor holds a mask: the range of its values would be absurd.

    The same where a mask, or what it is made of, was not seen: a range of the other values would lose it.
    """
    if site.range is not None or site.role in PARAMETERS:
        return site
    array = constant(model.graph.initializers.get(site.tensor))
    seen = Statistics.of(array) if site.role == "constant" and array is not None else seen
    if seen is None:
        return site
    told = {value.name: number for value, number in masks.hidden.items()}
    if site.tensor in {value.name for value in masks.deciding} and site.tensor not in told:
        return replace(site, range=SWITCH) if seen.lo == seen.hi == 0 else site
    return replace(site, range=range_with_mask(seen, 1 << site.format.bits, told.get(site.tensor, 0.0)))


def plan_of(model: Model, quantizers: Iterable[Quantizer]) -> Plan:
    """Sites and scales of quantizers, whether on or off; the plan belongs to this model."""
    quantizers = list(quantizers)
    sites = {site.tensor: site for quantizer in quantizers for site in quantizer.sites}
    qparams = {q.sites[0].group: q.qparams for q in quantizers if q.qparams is not None}
    return Plan(io.fingerprint(model), sites, around(model.graph, sites), qparams=qparams)


def rounded(model: Model, plan: Plan) -> Plan:
    """The plan with the integers of all constants, rounded as AIMET does; tuned ones stay."""
    codes = dict(plan.codes)
    for tensor, site in plan.sites.items():
        array = None if site.role == "activation" else constant(model.graph.initializers[tensor])
        if array is not None and tensor not in codes:
            q = plan.qparams_of(tensor)
            values = np.asarray(plan.values.get(tensor, array))
            codes[tensor] = Coded(quantize_half_up(values, q, site.format), q.scale)
    return replace(plan, codes=codes)


def on_grid(model: Model, plan: Plan) -> Model:
    """The float model with the values of the plan's integers in place of its parameters, and its float values."""
    arrays: dict[str, NDArray[Any]] = dict(plan.values)
    for tensor, tuned in plan.codes.items():
        if plan.sites[tensor].role in PARAMETERS:
            arrays[tensor] = dequantize(tuned.codes, plan.qparams_of(tensor), plan.sites[tensor].format)
    changed = io.copy(model)
    set_arrays(changed.graph, arrays)
    return changed


def raised(model: Model, plan: Plan) -> tuple[Model, Plan]:
    """Both in an operator set that has the formats of the plan."""
    opset = max((site.format.opset for site in plan.sites.values()), default=0)
    model = prepare(model, opset=opset, optimize=False).model
    return model, replace(plan, model=io.fingerprint(model))


def realized(model: Model, plan: Plan) -> Model:
    """The quantized model; grids of more than 16 bits are written out."""
    split = apart(model, plan)
    quantized = apply(*raised(split.model, split.with_stand_ins))
    if split.wide:
        quantized = widened(quantized, {t: (plan.qparams_of(t), site.format) for t, site in split.wide.items()})
    declare_outputs(quantized, model)
    return quantized
