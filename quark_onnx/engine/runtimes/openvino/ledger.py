"""The ledger of OpenVINO: for every node, whether an integer primitive of its CPU plugin computes it, else why not.

What is read is the graph that the plugin executes, and, where a quantized node is float there, the quantizers that
stand around it in the model. Nodes that no quantizer was put around have a primitive, too: the plugin adds in integers
what it gets so, and takes into a layer what stands behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.plan import Plan
from quark_onnx.engine.executed_work import on_integers, work_by_node
from quark_onnx.engine.ledger_rows import Inside, Row, Status
from quark_onnx.engine.runtimes.openvino.reasons import multiplies_integers, why_float
from quark_onnx.engine.runtimes.runtime import Executed
from quark_onnx.graph import Model, Node
from quark_onnx.graph.view import is_float, is_op

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
UNTOLD = "nothing of what OpenVINO executes can be told to be its work"
IN_A_BODY = "OpenVINO shows control flow as one node, and not what runs inside"


def openvino_rows(parts: Sequence[Inside], quantized: Model, executed: Sequence[Executed]) -> list[Row]:
    """A row for every node of the parts, from what OpenVINO executes for `quantized`."""
    written = {node.name or "": node for node in quantized.graph.all_nodes()}
    work = work_by_node(quantized, executed)
    own = _owners(work, written)
    rows = []
    for part in parts:
        for node in part.model.graph:
            name = node.name or ""
            one = work.get(name)
            kernel = "" if one is None else f"{one.op_type} {one.primitive}"
            reason = _reason(node, part.plan, one, written, bool(part.title))
            status: Status = "float" if reason else "integer" if name in own else "absorbed"
            rows.append(Row(name, node.op_type, status, kernel, part.told(reason)))
    return rows


def _reason(node: Node, plan: Plan, one: Executed | None, written: Mapping[str, Node], body: bool) -> str:
    """Why it is float; empty where it is not."""
    name = node.name or ""
    planned = bool(plan.nodes.get(name))
    if one is not None and _integer(node, one, written) and (planned or is_float(node.outputs[0])):
        return ""
    if not planned:
        return plan.notes.get(name, "not quantized")
    if name not in written:
        return ""  # its constant is stored as it is
    if one is None:
        return IN_A_BODY if body else UNTOLD
    return why_float(written[name])


def _integer(node: Node, one: Executed, written: Mapping[str, Node]) -> bool:
    quantized = written.get(node.name or "")
    if quantized is None or not is_op(quantized, *LAYERS):
        return on_integers(one)
    return multiplies_integers(quantized, one)


def _owners(work: Mapping[str, Executed], written: Mapping[str, Node]) -> set[str]:
    """Nodes whose primitive is their own: layers; where there is none in it, the first that it names."""
    layers = {name: one for name, one in work.items() if is_op(written[name], *LAYERS)}
    taken = {id(one) for one in layers.values()}
    others = {id(one): one for one in work.values() if id(one) not in taken}
    real = ([name for name in one.nodes if not is_op(written[name], *_QUANTIZERS)] for one in others.values())
    return {*layers, *(names[0] for names in real if names)}
