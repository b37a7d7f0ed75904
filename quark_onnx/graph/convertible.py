"""What a conversion to float16 or bfloat16 would reach, and what it would do to constants. Nothing is changed."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from quark_onnx.core.plan import Skip
from quark_onnx.graph.element_types import infer_types, largest_number, smallest_number
from quark_onnx.graph.float16_ports import ports
from quark_onnx.graph.io import copy
from quark_onnx.graph.view import constant


def why_not(model: ir.Model) -> dict[str, str]:
    """Node of the main graph that cannot be converted → the reason."""
    twin = copy(model)
    infer_types(twin)
    found = {node.name or "": ports(node, twin.opset_imports) for node in twin.graph}
    return {name: entry.reason for name, entry in found.items() if isinstance(entry, Skip)}


def losses(model: ir.Model, nodes: Collection[str], kind: str) -> dict[str, str]:
    """Constant that these nodes read → how many of its values are beyond the type, or too small for it.

    Args:
        kind: "float16" or "bfloat16".
    """
    twin = copy(model)
    infer_types(twin)
    found: dict[str, str] = {}
    for node in twin.graph:
        allowed = ports(node, twin.opset_imports)
        if node.name not in nodes or isinstance(allowed, Skip):
            continue
        for value, converts in zip(node.inputs, allowed.inputs, strict=True):
            if value is not None and converts and value.name not in found:
                text = _loss(value, ir.DataType[kind.upper()])
                found |= {value.name or "": text} if text else {}
    return found


def clamped(model: ir.Model, kind: str) -> ir.Model:
    """A copy whose finite constants are within the numbers of the type; they are not rounded."""
    largest = largest_number(ir.DataType[kind.upper()])
    twin = copy(model)
    for value in twin.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and (np.abs(array) > largest).any():
            inside = np.where(np.isfinite(array), np.clip(array, -largest, largest), array)
            value.const_value = ir.Tensor(inside.astype(np.float32), name=value.name)
    return twin


def _loss(value: ir.Value, kind: ir.DataType) -> str:
    array = constant(value)
    if array is None:
        return ""
    size, largest = np.abs(array[np.isfinite(array)]), largest_number(kind)
    beyond = np.count_nonzero(size > largest)
    vanish = np.count_nonzero((size > 0) & (size <= smallest_number(kind) / 2))
    texts = [f"{beyond} of {array.size} values are beyond ±{largest:.6g} and become that"] if beyond else []
    texts += [f"{vanish} of {array.size} values are too small for {kind.name.lower()} and become 0"] if vanish else []
    return "; ".join(texts)
