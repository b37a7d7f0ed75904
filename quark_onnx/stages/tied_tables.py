"""A table that is the weight of a product as well, the words of a decoder for one: the same integers for both.

    logits = x · tableᵀ     row i of the table has the scale of output i, and its integers

Then the file holds them once. What the weight was rounded to, or tuned to, counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import TABLE, Coded, Plan, Site
from quark_onnx.graph import Model
from quark_onnx.graph.shared_constants import as_rows
from quark_onnx.graph.view import constant
from quark_onnx.numerics.quantizer import quantize


def tied(model: Model, plan: Plan) -> Plan:
    """The plan of the prepared `model`, whose tables have the integers of weights that hold the same numbers."""
    codes = dict(plan.codes)
    for table in plan.sites.values():
        if table.rule == TABLE:
            for weight, turned in _twins(model, plan, table):
                q, coded = plan.qparams_of(weight.tensor), plan.coded(weight.tensor)
                found = quantize(_array(model, weight), q, weight.format) if coded is None else coded.codes
                codes[table.tensor] = Coded(np.ascontiguousarray(found.T) if turned else found, q.scale)
                break
    return replace(plan, codes=codes)


def _twins(model: Model, plan: Plan, table: Site) -> Iterator[tuple[Site, bool]]:
    """Weights with the numbers and the format of the table, and whether they are turned."""
    for site in plan.sites.values():
        alike = replace(site.format, safe_pairs="", axis=0) == table.format
        if site.role == "weight" and site.rule != TABLE and alike:
            turned = as_rows(_array(model, site), _array(model, table))
            if turned is not None and site.format.axis == int(turned):
                yield site, turned


def _array(model: Model, site: Site) -> NDArray[Any]:
    array = constant(model.graph.initializers[site.tensor])
    assert array is not None
    return array
