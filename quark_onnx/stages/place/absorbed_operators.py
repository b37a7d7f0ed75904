"""Operators behind a node that it takes in: a Relu or Clip, what the target runs together, the Add of a bias."""

from __future__ import annotations

from quark_onnx.core.operators import PAIRED_CLIPS
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, is_op, rank, sole_reader
from quark_onnx.stages.place.never_quantized import data_inputs
from quark_onnx.stages.place.shared_scales import shares_negative
from quark_onnx.stages.place.site_request import Context, SiteRequest


def bias_add(product: Value, context: Context) -> Node | None:
    """The Add of one constant per column that is the only reader of a product."""
    add = sole_reader(product)
    if not is_op(add, "Add") or add is None or add.name in context.barred:
        return None
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    array = constant(other)
    if array is None or array.ndim > (rank(product) or 0) or any(size != 1 for size in array.shape[:-1]):
        return None
    return add


def want_output(
    request: SiteRequest, node: Node, context: Context, known: tuple[float, float] | None = None, *, leads: bool = False
) -> None:
    """The quantizer behind `node`: after the clamp that follows it, where there is one.

    Case 1: Relu or Clip(0, M) and asymmetric activations: the range begins at 0 and ends within M, so the quantizer
            clamps exactly as they do, and onnxruntime drops them.
    Case 2: any other clamp, and one whose output shares a scale with negative values: a quantizer before and behind
            it, with one scale, so that nothing is rounded twice.
    Case 3: the target runs both as one (`Op.takes`): a quantizer behind them only.

    leads: other tensors follow the range of the output; what is behind a clamp would be too narrow.
    """
    if context.silent(node):
        return
    last = take_behind(request, node, context)
    output = last.outputs[0]
    clamp = sole_reader(output) if last is node and not context.config.row.inputs_only else None
    if clamp is None or not is_op(clamp, "Relu", "Clip") or clamp.name in context.barred or context.silent(clamp):
        request.want_data(output, context.config, range=known)
        return
    behind = clamp.outputs[0]
    request.absorbed.append(clamp)
    exact = _clamps_at_zero(clamp) and not context.config.activation.symmetric and not leads
    if not exact or shares_negative(behind, context.ops, context.aligned, context.barred):
        request.want_data(output, context.config)
        leader, follower = (output, behind) if leads else (behind, output)
        request.ties[follower.name or ""] = leader.name or ""
    request.want_data(behind, context.config)


def take_behind(request: SiteRequest, node: Node, context: Context) -> Node:
    """The last of the operators that the target runs together with `node`; the request takes in all of them."""
    follower = sole_reader(node.outputs[0])
    if follower is None or not _runs_with(node, follower, context):
        return node
    request.absorbed.append(follower)
    for value in data_inputs(follower, context.ops[follower.op_type])[1:]:
        request.want_data(value, context.config)
    return take_behind(request, follower, context)


def _runs_with(node: Node, follower: Node, context: Context) -> bool:
    if not is_op(follower, *context.ops[node.op_type].takes) or follower.name in context.barred:
        return False
    if context.silent(follower) or follower.inputs[0] is not node.outputs[0]:
        return False
    bounds = [constant(input_at(follower, i)) for i in (1, 2)]
    if follower.op_type == "Clip":
        return tuple(None if bound is None else float(bound.item()) for bound in bounds) in PAIRED_CLIPS
    return follower.op_type != "PRelu" or bounds[0] is not None


def _clamps_at_zero(clamp: Node) -> bool:
    if clamp.op_type == "Relu":
        return True
    low, high = constant(input_at(clamp, 1)), input_at(clamp, 2)
    return (
        low is not None and low.size == 1 and float(low.item()) == 0.0 and (high is None or constant(high) is not None)
    )
