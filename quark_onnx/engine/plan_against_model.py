"""What of a plan only the model can tell: whether scales, integers and values have the shapes of its tensors.

That a number is one that a plan may have at all is checked in `core.plan_checks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan, Site
from quark_onnx.graph import Model
from quark_onnx.numerics.quantizer import scale_shape

CODED = ("rounded", "codes")
"""Fields of the plan that hold integers of weights."""

AS_INITIALIZER = ("weight", "bias", "constant")
"""Roles of what the model does not compute."""

Shape = tuple[int, ...]


def refuse_misfit(model: Model, plan: Plan) -> None:
    """Refuse a plan that the model cannot take.

    Raises:
        PlanError: an entry has another shape than its tensor asks for; it is named.
    """
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    shapes = {name: tuple(tensor.shape.numpy()) for name, tensor in tensors.items() if tensor is not None}
    for why in (*_sites(plan, shapes), *_entries(plan, shapes)):
        raise PlanError(f"{why}; make a new plan, or put the right numbers back")


def _sites(plan: Plan, shapes: Mapping[str, Shape]) -> Iterator[str]:
    for tensor, site in plan.sites.items():
        shape = shapes.get(tensor)
        if shape is None and site.role in AS_INITIALIZER:
            yield f"the plan has {tensor!r} for a {site.role}, and the model has no such initializer"
        elif shape is None or site.role not in AS_INITIALIZER:
            if site.format.axis is not None:
                yield f"the plan has scales along an axis of {tensor!r}, and an activation has one scale"
        elif site.format.axis is not None and site.format.axis >= max(len(shape), site.role == "bias"):
            yield f"the plan has scales along axis {site.format.axis} of {tensor!r}, whose shape is {list(shape)}"
        elif site.role == "bias" and site.format.bits == 32:
            yield from _factors(plan, site)
        else:
            yield from _scales(plan, site, scale_shape(shape, site.format))


def _scales(plan: Plan, site: Site, wanted: Shape) -> Iterator[str]:
    held = [(kind, getattr(plan, kind).get(site.tensor)) for kind in CODED]
    for kind, entry in (("qparams", plan.qparams.get(site.group)), *held):
        if entry is not None and entry.scale.shape != wanted:
            yield f"{kind} of {site.tensor!r}: its scale has the shape {entry.scale.shape}, the tensor needs {wanted}"


def _factors(plan: Plan, site: Site) -> Iterator[str]:
    """The scale of an int32 bias is a product."""
    if len(site.factors) != 2:
        yield f"the bias {site.tensor!r} has the product of two scales, and the plan has {list(site.factors)} for it"


def _entries(plan: Plan, shapes: Mapping[str, Shape]) -> Iterator[str]:
    coded = {(kind, t): tuned.codes for kind in CODED for t, tuned in getattr(plan, kind).items()}
    for (kind, tensor), array in (coded | {("values", t): array for t, array in plan.values.items()}).items():
        if tensor not in shapes:
            yield f"{kind} of {tensor!r}: the model has no such initializer"
        elif not _stands_for(np.shape(array), shapes[tensor], kind):
            yield f"{kind} of {tensor!r}: they have the shape {np.shape(array)}, the tensor has {shapes[tensor]}"


def _stands_for(shape: Shape, of: Shape, kind: str) -> bool:
    """A bias that is one number for all channels may have got one for each."""
    return shape == of or (kind == "values" and math.prod(of) == 1)
