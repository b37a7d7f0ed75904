"""Plan → encodings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan, QParams, Site
from quark_onnx.encodings.encoding_values import PRODUCER, Encoding, EncodingFile, Loss, half
from quark_onnx.encodings.scale_layout import Shapes, shape_of
from quark_onnx.numerics.layer import integer_bias


def from_plan(plan: Plan, shapes: Shapes, producer: Mapping[str, Any] = PRODUCER) -> EncodingFile:
    """The grids of a plan: activations and constants that are read as such, and weights and biases as parameters.

    The scale of an int32 bias is the product that the quantized model has. What the plan decides beyond grids is
    listed in `losses`.

    Args:
        shapes: of the initializers that have a site.

    Raises:
        PlanError: the plan has no scale for a tensor, or a symmetric grid with its zero point elsewhere.
    """
    sections: dict[bool, dict[str, Encoding]] = {False: {}, True: {}}
    for tensor, site in plan.sites.items():
        if site.role != "dynamic":
            sections[site.role in ("weight", "bias")][tensor] = _encoding(plan, site, shapes)
    dynamic = tuple(tensor for tensor, site in plan.sites.items() if site.role == "dynamic")
    said = {
        "quantized at run time, without an encoding": dynamic,
        "tuned integers are not in the file; the exported model must have these weights rounded to them": plan.codes,
        "integers with safe pairs are not in the file; the exported model must have these weights rounded to them": [
            t for t in plan.rounded if t not in plan.codes
        ],
        "tuned float values are not in the file; the exported model must have them": plan.values,
        "multiplied when the model was equalized; the encodings belong to the equalized model": plan.factors,
        "raised when the model was equalized; the encodings belong to the equalized model": plan.shifts,
        "bodies of control flow: the grids inside are not in the file": [
            k for k, p in plan.bodies.items() if not p.empty
        ],
    }
    losses = tuple(Loss(what, tuple(tensors)) for what, tensors in said.items() if tensors)
    return EncodingFile(sections[False], sections[True], producer=producer, losses=losses)


def product_scale(plan: Plan, site: Site, shapes: Shapes) -> NDArray[np.float32]:
    """Scale of an int32 bias: that of the input times that of the weight, as the quantized model has it.

    Raises:
        PlanError: one of them has none.
    """
    x, w = (_qparams(plan, factor) for factor in site.factors)
    size = math.prod(shape_of(shapes, site.tensor))
    return integer_bias.scale(x.scale, w.scale, size // w.scale.size if w.scale.ndim and size > w.scale.size else 1)


def _encoding(plan: Plan, site: Site, shapes: Shapes) -> Encoding:
    format, axis = site.format, site.format.axis
    if site.role == "bias" and format.bits == 32:
        scale = product_scale(plan, site, shapes)
        q, axis = QParams(scale, np.zeros(scale.shape, np.int32)), 0
    else:
        q = _qparams(plan, site.tensor)
    scale, zero_point = q.scale, np.broadcast_to(q.zero_point, q.scale.shape)
    if format.block and format.axis in (0, 1):
        scale, zero_point = _without_taps(scale, zero_point)
    lowest = -half(format.bits) if format.signed else 0
    strict = format.symmetric and format.lo > lowest and format.bits != 32
    if strict and format.one_sided:  # the type's lowest code stands for the grid's: the values are the same
        zero_point = np.where(zero_point == format.lo, lowest, zero_point)
    try:
        return Encoding(
            site.tensor,
            f"{'' if format.signed else 'u'}int{format.bits}",
            scale.astype(np.float64),
            zero_point.astype(np.int64),
            format.symmetric,
            strict,
            axis if scale.ndim else None,
            format.block if scale.ndim else None,
        )
    except PlanError as error:
        raise PlanError(f"tensor {site.tensor!r}: {error}") from error


def _without_taps(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """One number for all axes behind the second, as AIMET has it for kernels, where there is only one."""
    first = tuple(slice(None) if i < 2 else slice(1) for i in range(arrays[0].ndim))
    return tuple(array[first] for array in arrays) if all(np.all(a == a[first]) for a in arrays) else arrays


def _qparams(plan: Plan, tensor: str) -> QParams:
    if tensor not in plan.sites or plan.sites[tensor].group not in plan.qparams:
        raise PlanError(f"the plan has no scale for {tensor!r}: its range was never chosen; make a new plan")
    return plan.qparams_of(tensor)
