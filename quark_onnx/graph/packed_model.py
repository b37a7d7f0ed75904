"""A model as plain values, which another process can be sent: bytes, and its large weights beside them."""

from __future__ import annotations

from typing import NamedTuple

import onnx
import onnx_ir as ir

from quark_onnx.graph import io, weights_apart
from quark_onnx.graph.custom_ops import attach, libraries


class PackedModel(NamedTuple):
    """A serialized model without the weights beside it, and paths of libraries that hold operators of it."""

    model: bytes
    weights: weights_apart.Weights
    libraries: tuple[str, ...]


def packed(model: ir.Model) -> PackedModel:
    """The model, with weights that are in files in memory."""
    light, weights = weights_apart.parted(io.inlined(model))
    return PackedModel(ir.to_proto(light).SerializeToString(), weights, libraries(model))


def unpacked(parts: PackedModel) -> ir.Model:
    """A model that computes the same.

    Raises:
        ConfigError: a library is not on this machine.
    """
    model: ir.Model = ir.from_proto(onnx.ModelProto.FromString(parts.model))
    for name, array in parts.weights.items():
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    if parts.libraries:
        attach(model, parts.libraries)
    return model
