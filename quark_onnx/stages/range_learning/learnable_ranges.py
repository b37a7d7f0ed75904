"""Which ranges of a plan may be learned, and where: the quantizers in front of a layer and behind it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.engine.apply_plan import has_scale
from quark_onnx.engine.layers import Unit
from quark_onnx.engine.layers.layer_inputs import float_of
from quark_onnx.engine.layers.node_activation import activation_of
from quark_onnx.graph import Model
from quark_onnx.graph.view import sole_reader
from quark_onnx.numerics.layer import integer_bias
from quark_onnx.numerics.layer.learned_step_size import Quantizer
from quark_onnx.numerics.quantizer import code_limits


class Movable(NamedTuple):
    """What of a group's range may be learned: its scale, and its zero point as well."""

    scale: bool
    zero: bool


class Written(NamedTuple):
    """The quantizer of a layer's output, in front of the activation function or behind it."""

    tensor: str
    behind: bool


STAYS = Movable(False, False)


def movable(plan: Plan, tensor: str) -> Movable:
    """What may be learned of the range of a tensor that has a site.

    Ranges known beforehand stay, as do scales that are not any float32. The zero point stays where the grid is
    symmetric, and where the lower end is known to be 0.
    """
    group = plan.sites[tensor].group
    members = [site for site in plan.sites.values() if site.group == group]
    if any(site.range is not None or site.format.scale != "float" or site.low or site.floor for site in members):
        return STAYS
    return Movable(True, all(not site.format.symmetric and site.low is None for site in members))


def is_fixed_grid(site: Site | None) -> bool:
    """Whether a tensor has one scale that the plan holds: not what is quantized at run time."""
    return site is not None and site.role == "activation"


def quantizer_of(plan: Plan, tensor: str) -> Quantizer:
    """The quantizer of an activation."""
    q = plan.qparams_of(tensor)
    return Quantizer(float(q.scale), int(q.zero_point), *code_limits(plan.sites[tensor].format))


def qparams_of(q: Quantizer) -> QParams:
    """As the plan has it."""
    return QParams(np.asarray(q.scale, np.float32), np.asarray(q.zero, np.int32))


def written(plan: Plan, unit: Unit, taken: Collection[str]) -> Written | None:
    """The output quantizer to learn with a layer: the first one behind it, if it is its own and no layer reads it.

    taken: groups that layers read. They are learned there.
    """
    name, behind = unit.output.name or "", False
    reader = sole_reader(unit.output)
    if name not in plan.sites and reader is not None and activation_of(reader) is not None:
        name, behind = reader.outputs[0].name or "", True
    site = plan.sites.get(name)
    if site is None or site.role != "activation" or site.group in taken or not movable(plan, name).scale:
        return None
    alone = sum(other.group == site.group for other in plan.sites.values()) == 1
    return Written(name, behind) if alone else None


def biases_fit(model: Model, plan: Plan) -> bool:
    """Whether every int32 bias fits at the scales of the plan."""
    return all(_fits(model, plan, site) for site in plan.sites.values() if site.role == "bias" and not has_scale(site))


def _fits(model: Model, plan: Plan, site: Site) -> bool:
    array: NDArray[Any] = plan.values.get(site.tensor, float_of(model, site.tensor)).reshape(-1)
    x, w = (plan.qparams_of(factor).scale for factor in site.factors)
    step = integer_bias.scale(x, w, max(1, array.size // w.size) if w.ndim else 1)
    return bool((np.abs(array.astype(np.float64)) <= step.astype(np.float64) * integer_bias.LIMIT).all())
