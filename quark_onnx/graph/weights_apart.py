"""Weights that a session reads where they are, instead of out of the bytes of its model.

To write them into a protobuf, that into bytes, and to have onnxruntime read these takes longer than all that it does
with a model of 90 MB, and a copy of the weights each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

ABOVE = 1 << 24
"""Bytes of weights of a model from which on that pays: parting costs what copying 10 MB does."""

LARGE = 1 << 16
"""Bytes of a weight that is given apart."""

Weights = dict[str, NDArray[Any]]


def parted(model: ir.Model) -> tuple[ir.Model, Weights]:
    """The model with nothing but names of large weights of the main graph, and these; itself where they are few."""
    weights = {name: array for name, value in model.graph.initializers.items() if (array := _large(value)) is not None}
    if sum(array.nbytes for array in weights.values()) < ABOVE:
        return model, {}
    light = model.clone()
    for name, array in weights.items():
        value, shape = light.graph.initializers[name], ir.Shape(array.shape)
        kind = ir.DataType.from_numpy(array.dtype)
        value.const_value = ir.ExternalTensor("apart", 0, array.nbytes, kind, shape=shape, name=name, base_dir="")
    return light, weights


def _large(value: ir.Value) -> NDArray[Any] | None:
    """The numbers of a large weight in memory, if they are of a type that numpy has."""
    tensor = value.const_value
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes < LARGE:
        return None
    array = tensor.numpy()
    return np.ascontiguousarray(array) if array.dtype.kind in "fiu" else None
