"""The fusion ledger: for every node, whether onnxruntime will run it on integers, read from its optimized graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quark_onnx.core.ops import CPU
from quark_onnx.core.plan import Plan
from quark_onnx.engine.runner import optimized_nodes
from quark_onnx.graph import Model
from quark_onnx.graph.view import is_op

Status = Literal["integer", "absorbed", "float"]

_APPENDED = re.compile(r"(/MatMulAddFusion|_token_\d+)$")
_INTEGER_OUTPUT = ("QuantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Row:
    """One node of the prepared model.

    status  integer: an integer kernel, or integers passed through; absorbed: another node's kernel does its work;
            float: computed in floating point
    kernel  operator in onnxruntime's graph, empty when the node is gone
    reason  why it is float, else empty
    """

    node: str
    op_type: str
    status: Status
    kernel: str
    reason: str


def ledger(model: Model, plan: Plan, quantized: Model) -> list[Row]:
    """A row for every node of the prepared `model`, from the graph that onnxruntime makes of `quantized`."""
    executed = optimized_nodes(quantized)
    by_name = _by_name(executed)
    integers = _integer_tensors(executed, quantized)
    return [_row(node.name or "", node.op_type, plan, by_name, integers) for node in model.graph]


def fused(rows: Iterable[Row], *op_types: str) -> int:
    """How many nodes of these operators run on integers."""
    return sum(row.op_type in op_types and row.status == "integer" for row in rows)


def _by_name(executed: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Nodes by their name, and by that of the node they were made from: fusions append to it."""
    found = {node["name"]: node for node in executed}
    for node in executed:
        name = node["name"]
        while (shorter := _APPENDED.sub("", name)) != name:
            found.setdefault(shorter, node)
            name = shorter
    return found


def _integer_tensors(executed: Iterable[Mapping[str, Any]], quantized: Model) -> set[str]:
    """Tensors that hold integer codes: what is dequantized, what integer kernels write, passed through by movers."""
    codes = (node.inputs[0] for node in quantized.graph if is_op(node, "DequantizeLinear"))
    found = {value.name or "" for value in codes if value is not None}
    for node in executed:
        kind = node["op_type"]
        moves = kind in CPU and CPU[kind].kind == "same" and node["inputs"][0] in found
        if kind in _INTEGER_OUTPUT or kind.startswith("QLinear") or kind == "QGemm" or moves:
            found.update(node["outputs"])
    return found


def _row(name: str, op_type: str, plan: Plan, by_name: Mapping[str, Mapping[str, Any]], integers: set[str]) -> Row:
    executed = by_name.get(name)
    kernel = "" if executed is None else str(executed["op_type"])
    if name not in plan.nodes:
        return Row(name, op_type, "float", kernel, plan.notes.get(name, "not quantized"))
    if executed is None:
        return Row(name, op_type, "absorbed", "", "")
    row = CPU[op_type]
    if kernel in row.kernels or (row.kind == "same" and executed["inputs"][0] in integers):
        return Row(name, op_type, "integer", kernel, "")
    if not row.fuses:
        return Row(name, op_type, "float", kernel, "onnxruntime's CPU provider has no integer kernel for it")
    if row.kind == "clamp" or op_type == "Add":
        return Row(name, op_type, "float", kernel, "computed in float between integer kernels")
    return Row(name, op_type, "float", kernel, f"onnxruntime did not fuse it ({_why(plan, name)})")


def _why(plan: Plan, name: str) -> str:
    """The most likely cause, from onnxruntime's fusion rules."""
    for tensor in plan.nodes[name]:
        site = plan.sites.get(tensor)
        if site is not None and site.format.storage_bits != 8 and site.role != "bias":
            return f"{site.format.dtype} has no integer kernel"
    return "its neighbours do not meet the kernel's conditions"
