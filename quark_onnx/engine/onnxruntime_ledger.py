"""The ledger of onnxruntime: for every node, whether it will run on integers, read from the optimized graph.

That is the graph of its CPU provider. For another target it proves that the model loads and what CPUs fuse of it, not
what the target makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from quark_onnx.core.operators import CPU, LAYERS, Op
from quark_onnx.core.plan import Plan, Site
from quark_onnx.core.settings.targets import Target
from quark_onnx.engine.ledger_rows import Inside, Row
from quark_onnx.engine.runner import executed_model
from quark_onnx.engine.saturation_certificate import NO_PRODUCT, Certificate, certificates
from quark_onnx.graph import Model, Node, Value
from quark_onnx.graph.view import constant, is_op

NO_KERNEL = "onnxruntime's CPU provider has no integer kernel for it"
BETWEEN = "computed in float between integer kernels"
WITH_BIAS = "the kernel that takes integer weights adds no bias up to onnxruntime 1.24; newer ones do"
ADDED = "added in float to what the product in front of it returns"

_APPENDED = re.compile(r"^fused |(/MatMulAddFusion|_token_\d+)$")
_NO_KERNEL = Op("act", fuses=False)
_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulNBits")
"""Kernels for products that quantize their input by themselves; the output is float."""

_INTEGER_OUTPUT = ("QuantizeLinear", "DynamicQuantizeLinear")


def onnxruntime_rows(parts: Sequence[Inside], quantized: Model, target: Target) -> list[Row]:
    """A row for every node of the parts, from the graph that onnxruntime makes of `quantized`.

    Raises:
        ModelError: onnxruntime's CPU provider cannot load it.
    """
    with executed_model(quantized) as executed:
        by_name = _by_name(executed.graph.all_nodes())
        integers = _integer_tensors(executed.graph.all_nodes(), quantized)
        known = certificates(executed)
    rows = []
    for part in parts:
        for node in part.model.graph:
            row = _certified(_row(node.name or "", node.op_type, part.plan, by_name, integers), by_name, known)
            row = _unproven(row, target) if row.node in part.plan.nodes and not target.on_cpu else row
            rows.append(replace(row, reason=part.told(row.reason)))
    return rows


def _unproven(row: Row, target: Target) -> Row:
    """A quantized node that the CPU provider computes in float: the target may do better."""
    seen = f"quantized for {target.title}; onnxruntime's CPU provider, where the ledger looks, computes it in float"
    return replace(row, reason=seen) if row.status == "float" else row


def _certified(row: Row, by_name: Mapping[str, Node], known: Mapping[Node, Certificate]) -> Row:
    """The row with what is certified of its kernel, and that of a float node that onnxruntime quantizes by itself."""
    node = by_name.get(row.node)
    none = NO_PRODUCT if row.status == "integer" else None
    return row if node is None or row.status == "absorbed" else replace(row, certificate=known.get(node, none))


def _by_name(executed: Iterable[Node]) -> dict[str, Node]:
    """Nodes by their name, and by that of the node they were made from."""
    found = {node.name or "": node for node in executed}
    for name, node in list(found.items()):
        for earlier in made_from(name):
            found.setdefault(earlier, node)
    return found


def made_from(name: str) -> Iterator[str]:
    """The names that a node of onnxruntime's graph may have had before fusions appended to its name, the last first."""
    while (shorter := _APPENDED.sub("", name)) != name:
        yield shorter
        name = shorter


def _integer_tensors(executed: Iterable[Node], quantized: Model) -> set[str]:
    """Tensors that hold integer codes: what is dequantized, what integer kernels write, passed through by movers."""
    codes = [node.inputs[0] for node in quantized.graph.all_nodes() if is_op(node, "DequantizeLinear")]
    tables = [n.inputs[0] for n in quantized.graph if is_op(n, "Gather") and _holds_codes(n.inputs[0])]
    found = {value.name or "" for value in (*codes, *tables) if value is not None}
    for node in executed:
        kind = node.op_type
        moves = kind in CPU and CPU[kind].kind == "same" and _first_input(node) in found
        if kind in _INTEGER_OUTPUT or kind.startswith("QLinear") or (kind == "QGemm" and len(node.inputs) > 7) or moves:
            found.update(value.name or "" for value in node.outputs)
    return found


def _holds_codes(value: Value | None) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind in "iu" and array.dtype.itemsize < 4


def _first_input(node: Node) -> str:
    return (node.inputs[0].name or "") if node.inputs and node.inputs[0] is not None else ""


def _row(name: str, op_type: str, plan: Plan, by_name: Mapping[str, Node], integers: set[str]) -> Row:
    executed = by_name.get(name)
    kernel = "" if executed is None else executed.op_type
    if not plan.nodes.get(name):  # not in the plan, or converted to another float type
        return Row(name, op_type, "float", kernel, plan.notes.get(name, "not quantized"))
    row = CPU.get(op_type, _NO_KERNEL)
    if executed is None and op_type not in LAYERS:  # products of floats get other names, those of integers do not
        return Row(name, op_type, "absorbed", "", "")
    product = kernel in _PRODUCTS and op_type in ("MatMul", "Gemm")
    moves = row.kind == "same" and executed is not None and _first_input(executed) in integers
    if product or kernel in row.kernels or moves:
        return Row(name, op_type, "integer", kernel, "")
    if not row.fuses:
        return Row(name, op_type, "float", kernel, NO_KERNEL)
    if row.kind == "clamp" or op_type == "Add":
        absorbed = list(plan.nodes.values()).count(plan.nodes[name]) > 1
        return Row(name, op_type, "float", kernel, ADDED if absorbed and op_type == "Add" else BETWEEN)
    return Row(name, op_type, "float", kernel, f"onnxruntime did not fuse it ({_why(plan, name, op_type, kernel)})")


def _why(plan: Plan, name: str, op_type: str, kernel: str) -> str:
    """The most likely cause, from onnxruntime's fusion rules."""
    sites = [plan.sites[tensor] for tensor in plan.nodes[name] if tensor in plan.sites]
    roles = {site.role for site in sites}
    product = op_type in ("MatMul", "Gemm")
    if not product and not roles - {"weight"}:
        return f"only its weight is integer, and {op_type} has no kernel for that"
    if not product and "dynamic" in roles:
        return f"{op_type} has no kernel for an input that is quantized at run time"
    reason = _why_alone if roles == {"weight"} else _why_beside
    found = (reason(site) for site in sites)
    left = (
        WITH_BIAS if roles == {"weight"} and kernel == "Gemm" else "its neighbours do not meet the kernel's conditions"
    )
    return next((text for text in found if text), left)


def _why_alone(site: Site) -> str:
    """What keeps a weight from the kernel that multiplies floats with integer weights."""
    format = site.format
    if format.storage_bits not in (4, 8):
        return f"{format.dtype} has no kernel beside floats"
    if format.axis is None or (format.axis == 1 and not format.block):
        return ""
    if format.axis == 1 or not format.block:
        return "the kernel takes a weight that stands on the right and is not stored transposed"
    if format.block < 16 or format.block & (format.block - 1):
        return f"the kernel takes blocks of 16, 32, 64, …, not of {format.block}"
    return ""


def _why_beside(site: Site) -> str:
    """What keeps a quantizer from the kernels that multiply integers."""
    format = site.format
    if site.role == "bias":
        return "" if format.bits == 32 else f"its bias has {format.bits} bits, the kernel adds int32"
    if format.block:
        return "its weight has a scale per block"
    if format.storage_bits != 8:
        return f"{format.dtype} has no integer kernel"
    if format.scale == "half":
        return "float16 scales have no integer kernel"
    if format.simulated and site.role != "weight":
        return f"{format.bits} bits are simulated: a Clip stands in front of the quantizer"
    return ""
