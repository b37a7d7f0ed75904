"""Element types of values: inferred everywhere, bodies of control flow included, and rewritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from quark_onnx.core.resource_faults import let_out
from quark_onnx.graph.passes import infer_shapes
from quark_onnx.graph.without_weights import light_proto

RESULT_TYPES = ("to", "dtype", "output_datatype", "output_dtype")
"""Attributes of standard operators that hold the element type of a result."""

INNER_TYPES = ("stash_type", "softmax_precision")
"""Those that hold the element type of what is computed inside."""


def infer_types(model: ir.Model) -> None:
    """Types and shapes of all values, where they can be told; initializers get those of their tensors."""
    graphs = [model.graph, *(graph for graph in model.graphs() if graph is not model.graph)]
    for graph in graphs:
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and value.type is None:
                value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    infer_shapes(model)
    if len(graphs) > 1:
        _infer_bodies(model)


def infer_types_as(model: ir.Model, known: ir.Model) -> None:
    """`infer_types`; what cannot be told, behind operators of others say, is what it is in a model of the same values.

    Args:
        known: has types and shapes where they are known.
    """
    infer_types(model)
    like = {value.name: value for node in known.graph for value in node.outputs if value.name}
    values = [value for node in model.graph for value in node.outputs]
    missing = [(value, like[value.name]) for value in values if value.shape is None and value.name in like]
    for value, twin in missing:
        value.type, value.shape = twin.type, twin.shape
    if missing:
        infer_types(model)


def _infer_bodies(model: ir.Model) -> None:
    try:
        found = onnx.shape_inference.infer_shapes(light_proto(model)).graph
    except Exception as error:  # what cannot be inferred has no type; whoever needs one says so
        let_out(error)
        return
    for node, like in zip(model.graph, found.node, strict=True):
        _told(node, like)


def _told(node: ir.Node, like: onnx.NodeProto) -> None:
    """Types of the values in the bodies of a node, from its inferred twin."""
    twins = {attribute.name: attribute.g for attribute in like.attribute if attribute.HasField("g")}
    for name, twin in twins.items():
        body = node.attributes[name].as_graph()
        infos = {info.name: info.type for info in (*twin.value_info, *twin.output)}
        for inner, inner_like in zip(body, twin.node, strict=True):
            for value in inner.outputs:
                if value.name in infos:
                    value.type = ir.serde.deserialize_type_proto_for_type(infos[value.name]) or value.type
            _told(inner, inner_like)


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """The type of a tensor's elements; None for what is absent, unknown, or no tensor."""
    if value is None or not isinstance(value.type, ir.TensorType):
        return None
    return value.type.dtype


def retyped(kind: Any, old: ir.DataType, new: ir.DataType) -> Any:
    """The type with `new` for `old`, in sequences and optionals too; the one given is not changed."""
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        return type(kind)(retyped(kind.elem_type, old, new))
    return ir.TensorType(new) if isinstance(kind, ir.TensorType) and kind.dtype == old else kind


def names_type(attribute: ir.Attr, kind: ir.DataType, names: tuple[str, ...]) -> bool:
    """Whether an attribute, of one of these names, says `kind`."""
    return attribute.type == ir.AttributeType.INT and attribute.name in names and attribute.value == kind.value


def holds_type(attribute: ir.Attr, kind: ir.DataType) -> bool:
    """Whether an attribute is a tensor of `kind`."""
    is_tensor = attribute.type == ir.AttributeType.TENSOR and attribute.value is not None
    return bool(is_tensor and attribute.value.dtype == kind)


def retype_attributes(node: ir.Node, old: ir.DataType, new: ir.DataType, names: tuple[str, ...]) -> None:
    """Attributes of these names that say `old` say `new`, and tensors among all attributes are converted."""
    for name, attribute in tuple(node.attributes.items()):
        if names_type(attribute, old, names):
            node.attributes.add(ir.AttrInt64(name, new.value))
        elif holds_type(attribute, old):
            node.attributes.add(ir.AttrTensor(name, converted(attribute.value, new)))


def converted(tensor: Any, new: ir.DataType) -> Any:
    """The tensor in another float type, under its name. Finite values stay finite."""
    return ir.Tensor(rounded(tensor.numpy(), new), dtype=new, name=tensor.name)


def rounded(array: NDArray[Any], kind: ir.DataType) -> NDArray[Any]:
    """The array in a float type: half to even, finite values beyond the largest number become that number."""
    if kind == ir.DataType.FLOAT:
        return array.astype(np.float32)
    largest = largest_number(kind)
    clipped = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
    return clipped.astype(kind.numpy())


def largest_number(kind: ir.DataType) -> float:
    """The largest finite number of float16 or bfloat16."""
    return float(kind.max)


def smallest_number(kind: ir.DataType) -> float:
    """The smallest number above 0 of float16 or bfloat16, a subnormal one."""
    return {ir.DataType.FLOAT16: 2.0**-24, ir.DataType.BFLOAT16: 2.0**-133}[kind]
