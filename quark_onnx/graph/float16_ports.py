"""Which inputs and outputs of a node may be float16: what the schema of its operator says in the model's operator set.

An input of a fixed type, such as the scales of Resize, stays float32, and so does a type variable without float16, such
as that of Range. Operators that make numbers of a type that an attribute names, such as RandomNormal, stay float32: few
runtimes make float16 ones. Of onnxruntime's own, of which onnx has no schemas, those of transformers are known. All
others that no schema knows stay as they are, and so do nodes that read or write a value of unknown type, or sequences,
which no Cast can convert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import onnx
import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.element_types import element_type

OWN: Mapping[str, tuple[int, ...]] = {
    "Attention": (),
    "BiasGelu": (),
    "EmbedLayerNormalization": (),
    "FastGelu": (),
    "FusedMatMul": (),
    "Gelu": (),
    "GroupQueryAttention": (),
    "LayerNormalization": (1, 2),
    "MultiHeadAttention": (),
    "QuickGelu": (),
    "RotaryEmbedding": (),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (1, 2),
}
"""Operators of onnxruntime alone that compute in float16 as well, and their outputs that are float32 all the same."""

_MOST_OUTPUTS = 4  # of these


@dataclass(frozen=True)
class Ports:
    """By input and by output: whether it is a float32 tensor that may as well be float16."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


def no_ports(node: ir.Node) -> Ports:
    """Of a node that is left as it is."""
    return Ports((False,) * len(node.inputs), (False,) * len(node.outputs))


def ports(node: ir.Node, opsets: Mapping[str, int]) -> Ports | Skip:
    """The ports of a node, or why it has none. Types must have been inferred."""
    outputs = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    for value in (*node.inputs, *outputs):
        if value is not None and value.type is None:
            return Skip(f"the type of {value.name!r} is unknown")
        if value is not None and value.dtype == ir.DataType.FLOAT and element_type(value) is None:
            return Skip(f"{value.name!r} is a sequence of tensors, which cannot be converted")
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    if any(value.type is None for body in bodies for value in (*body.inputs, *body.outputs)):
        return Skip("a type in its body is unknown")
    title = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    allowed = _allowed(node.op_type, *_version(node, opsets))
    if allowed is None:
        return Skip(f"{title} is not an operator of ONNX")
    kinds = [[element_type(v) == ir.DataType.FLOAT for v in side] for side in (node.inputs, node.outputs)]
    if not any(map(any, kinds)):
        return Skip("holds no float32 values")
    takes, gives = (
        tuple(is_float and formal[min(i, len(formal) - 1)] for i, is_float in enumerate(side))
        for side, formal in zip(kinds, allowed, strict=True)
    )
    return Ports(takes, gives) if any(takes + gives) else Skip(f"{title} does not take float16")


def _version(node: ir.Node, opsets: Mapping[str, int]) -> tuple[int, str]:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return opsets.get(domain, 1), domain


@lru_cache(maxsize=1024)
def _allowed(op_type: str, opset: int, domain: str) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """By formal input and output of an operator: whether it may be float16. None: there is no such operator."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        fixed = OWN.get(op_type) if domain in ("", "com.microsoft") else None
        return None if fixed is None else ((True,), tuple(at not in fixed for at in range(_MOST_OUTPUTS)))
    if {"dtype", "output_datatype"} & schema.attributes.keys():  # float16 by schema, not by kernels
        return (False,) * len(schema.inputs), (False,) * len(schema.outputs)
    variables = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    inputs, outputs = (
        tuple("tensor(float16)" in variables.get(formal.type_str, ()) for formal in side)
        for side in (schema.inputs, schema.outputs)
    )
    return inputs, outputs
