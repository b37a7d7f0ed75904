"""Fold a positive factor behind a Relu or Clip into the layer in front of it.

    c · clip(W x + b, l, h)  =  clip((c W) x + c b, c l, c h),      c > 0

The HardSigmoid of older exporters ends so: clip(x + 3, 0, 6) / 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.edit import add_constant, become, bypass, graph_of
from quark_onnx.graph.rewrite import Rule
from quark_onnx.graph.view import constant, is_op, sole_reader
from quark_onnx.stages.prepare.affine_layer import read
from quark_onnx.stages.prepare.scalars import multiplied
from quark_onnx.stages.prepare.scaled_constants import Folded, after, store


class Found(NamedTuple):
    """`at` is the input of `scale` that comes from the clamp, `bounds` are the clamp's new ones."""

    scale: Node
    at: int
    clamp: Node
    bounds: tuple[NDArray[Any] | None, ...]
    layer: Folded


def match(scale: Node) -> Found | Skip:
    """Read only: all that `apply` needs, or why there is nothing to do."""
    found = multiplied(scale)
    if found is None or found.number <= 0:
        return Skip("it does not multiply by a positive number")
    clamp = found.source.producer()
    if clamp is None or not is_op(clamp, "Relu", "Clip") or sole_reader(found.source) is not scale:
        return Skip("it is not the only reader of a Relu or Clip")
    source = clamp.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or not is_op(producer, *LAYERS):
        return Skip("no layer is in front of the clamp")
    if sole_reader(source) is not clamp:
        return Skip("the output of the layer is read elsewhere")
    bounds = _scaled(tuple(clamp.inputs[1:]), found.number)
    if isinstance(bounds, Skip):
        return bounds
    layer = read(producer)
    if isinstance(layer, Skip):
        return layer
    new = after(layer, np.full(layer.channels, found.number), np.zeros(layer.channels))
    return new if isinstance(new, Skip) else Found(scale, found.at, clamp, bounds, new)


@np.errstate(over="ignore")  # what is not finite is refused
def _scaled(bounds: tuple[Value | None, ...], factor: float) -> tuple[NDArray[Any] | None, ...] | Skip:
    arrays = [constant(bound) for bound in bounds]
    if any(bound is not None and array is None for bound, array in zip(bounds, arrays, strict=True)):
        return Skip("a bound of the Clip is computed at run time")
    scaled = tuple(None if a is None else (a.astype(np.float64) * factor).astype(a.dtype) for a in arrays)
    if any(array is not None and not np.isfinite(array).all() for array in scaled):
        return Skip("a scaled bound is not finite")
    return scaled


def apply(found: Found) -> None:
    """Edit only."""
    clamp, graph = found.clamp, graph_of(found.clamp)
    store(found.layer)
    bounds = [None if a is None else add_constant(graph, a, f"{clamp.name}_bound") for a in found.bounds]
    become(clamp, clamp.op_type, [clamp.inputs[0], *bounds])
    bypass(found.scale, found.at)


RULE = Rule("scale-behind-clamp", ("Mul", "Div"), match, apply)
