"""The model with its initializers multiplied by factors, and shifts added."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from quark_onnx.graph import Model
from quark_onnx.graph.edit import set_constant
from quark_onnx.graph.io import copy, is_heavy, settle
from quark_onnx.graph.large_weights import compute_late, let_go

Array = NDArray[Any]


def rescale(model: Model, factors: Mapping[str, Array], shifts: Mapping[str, Array]) -> Model:
    """A copy with `initializer · factor + shift` in place of the initializers named."""
    scaled = copy(model)
    names = dict.fromkeys((*factors, *shifts))
    makers = {
        name: partial(_rescaled, scaled.graph.initializers[name].const_value, factors.get(name), shifts.get(name))
        for name in names
    }
    if is_heavy(scaled):
        compute_late(scaled.graph, makers)
        settle(scaled)
        return scaled
    for name, make in makers.items():
        (use,) = scaled.graph.initializers[name].uses()  # `find` takes no other
        set_constant(use.node, use.idx, make(), name)
    return scaled


def _rescaled(tensor: Any, factor: Array | None, shift: Array | None) -> Array:
    array: Array = tensor.numpy()
    result = array if factor is None else array * factor
    result = result if shift is None else result + shift
    for used in (tensor, factor):
        let_go(used)
    return result.astype(array.dtype, copy=False)
