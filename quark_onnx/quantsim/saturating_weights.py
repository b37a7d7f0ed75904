"""Weights of an exported model that x64 without VNNI would saturate on, stored so that it does not: the same values.

A simulation has its numbers from encodings, so its codes stay; as uint8 with zero point 128 they are exact everywhere,
at two thirds of the speed. int8 activations go along, as onnxruntime has no kernel for them beside uint8 weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.graph import Model
from quark_onnx.stages.place.saturating_weights import without_saturation
from quark_onnx.stages.place.storage_types import unsigned_activations
from quark_onnx.stages.weight_rounding import unsafe_weights


def exact_everywhere(model: Model, plan: Plan) -> Plan:
    """The plan of a simulation, with integers of all weights, in types that no processor saturates on."""
    marked, _ = without_saturation(model.graph, plan.sites, plan.nodes, TARGETS["cpu"], "auto")
    unsafe = unsafe_weights(model, replace(plan, sites=marked))
    unsafe |= {t for t, site in marked.items() if site.format.dtype != plan.sites[t].format.dtype}
    if not unsafe:
        return plan
    sites = unsigned_activations(plan.sites)
    sites |= {t: replace(plan.sites[t], format=plan.sites[t].format.unsigned) for t in unsafe}
    moved = {t: site for t, site in sites.items() if site.format != plan.sites[t].format}
    shifted = {site.group: _shifted(plan.qparams[site.group], site) for site in moved.values()}
    codes = {t: replace(c, codes=c.codes + _shift(moved[t])) if t in moved else c for t, c in plan.codes.items()}
    return replace(plan, sites=sites, qparams={**plan.qparams, **shifted}, codes=codes)


def _shift(site: Site) -> int:
    """From a signed code to the unsigned one of the same value."""
    return 1 << (site.format.bits - 1)


def _shifted(q: QParams, site: Site) -> QParams:
    return QParams(q.scale, np.asarray(q.zero_point + _shift(site), np.int32))
