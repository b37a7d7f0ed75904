"""Grids of more than 16 bits, which QuantizeLinear has not: constants take their values, activations are written out.

They are computed in float64, which holds their codes and the quotients that are rounded; a float32 has 24 bits. Tuning
takes what has such a grid for float: it is finer than 1 / 100,000 of the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.number_formats import Format
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.graph import Model, io
from quark_onnx.graph.edit import set_arrays
from quark_onnx.graph.view import constant
from quark_onnx.numerics.quantizer import dequantize, quantize_half_up

STAND_IN = QParams(np.asarray(1, np.float32), np.asarray(0, np.int32))
"""Of an activation whose quantizer `apply` puts in its place, to be written out then."""


@dataclass(frozen=True, eq=False)
class Apart:
    """A model and its plan without wide grids.

    model   constants have the values of their wide grids
    plan    of this model: all other sites
    wide    sites of activations with a wide grid
    """

    model: Model
    plan: Plan
    wide: Mapping[str, Site]

    @property
    def with_stand_ins(self) -> Plan:
        """The plan with 16 bits on the activations that have more."""
        sites = {t: replace(site, format=Format(16, signed=False)) for t, site in self.wide.items()}
        qparams = {site.group: STAND_IN for site in self.wide.values()}
        return replace(self.plan, sites={**self.plan.sites, **sites}, qparams={**self.plan.qparams, **qparams})


def apart(model: Model, plan: Plan) -> Apart:
    """A model and its plan without wide grids; both are left as they are."""
    wide = {tensor: site for tensor, site in plan.sites.items() if site.format.wide}
    if not wide:
        return Apart(model, plan, {})
    arrays: dict[str, NDArray[Any]] = {}
    for tensor, site in wide.items():
        array = constant(model.graph.initializers.get(tensor))
        if array is not None:
            q = plan.qparams_of(tensor)
            values = np.asarray(plan.values.get(tensor, array))
            arrays[tensor] = dequantize(quantize_half_up(values, q, site.format), q, site.format)
    changed = io.copy(model)
    set_arrays(changed.graph, arrays)
    kept = {
        name: {tensor: value for tensor, value in getattr(plan, name).items() if tensor not in wide}
        for name in ("sites", "codes", "values")
    }
    rest = replace(plan, model=io.fingerprint(changed), **kept)
    return Apart(changed, rest, {tensor: site for tensor, site in wide.items() if tensor not in arrays})


def together(tuned: Plan, whole: Plan) -> Plan:
    """What tuning made of a plan, with the wide grids of the one that it began with."""
    wide = {tensor: site for tensor, site in whole.sites.items() if site.format.wide}
    qparams = {site.group: whole.qparams[site.group] for site in wide.values()}
    return replace(tuned, sites={**tuned.sites, **wide}, qparams={**tuned.qparams, **qparams}) if wide else tuned


def refuse_wide(plan: Plan) -> None:
    """Raise where a tensor has a grid that no quantized model can hold.

    Raises:
        ConfigError: one has.
    """
    for tensor, site in plan.sites.items():
        if site.format.wide:
            raise ConfigError(
                f"{tensor!r} has {site.format.bits} bits, and QuantizeLinear has 16 at most: such a grid can "
                f"be simulated, and its encodings exported; set sim.quantizer({tensor!r}).bitwidth = 16"
            )
