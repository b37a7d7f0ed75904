"""Placement rules: what a node needs around it to run on integers, by kind of operator.

Each rule only reads: it returns a `SiteRequest`, or `Skip` with the reason why the node stays float.
"""

from __future__ import annotations

from quark_onnx.core.number_formats import Format
from quark_onnx.core.operators import Op
from quark_onnx.core.plan import Skip
from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import constant, input_at, rank
from quark_onnx.numerics.quantizer import dequantize, qparams, quantize
from quark_onnx.stages.place.absorbed_operators import bias_add, take_behind, want_output
from quark_onnx.stages.place.never_quantized import data_inputs
from quark_onnx.stages.place.parameter_formats import (
    bias_format,
    output_channels,
    row_length,
    weight_axis,
    weight_format,
)
from quark_onnx.stages.place.probability_outputs import REASON as SHOWN
from quark_onnx.stages.place.probability_outputs import moves_shown, only_shown
from quark_onnx.stages.place.site_request import Context, Rule, SiteRequest
from quark_onnx.stages.place.zero_points import ELSEWHERE, along_channels, zero_at_0


def layer(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """Conv, ConvTranspose, Gemm: activation in and out, integer weight, int32 bias at input scale · weight scale."""
    weight, bias = input_at(node, 1), input_at(node, 2)
    if weight is None or constant(weight) is None:
        return Skip("the weight is computed at run time")
    if node.op_type == "Gemm" and any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return Skip("alpha or beta is not 1; optimize_model=True folds them")
    channels = output_channels(node, row, weight)
    if bias is not None and constant(bias) is None:
        return Skip("the bias is computed at run time")
    if row.zero_at_0 and not zero_at_0(node.inputs[0], context):
        return Skip(ELSEWHERE)
    if bias is not None and row_length(bias) not in (1, channels):
        return Skip("the bias is not one number per output channel")
    request = SiteRequest("layer")
    request.want_data(node.inputs[0], context.config)  # type: ignore[arg-type]
    request.want(weight, "weight", weight_format(context, node, weight, weight_axis(node, row)))
    _want_bias(request, bias, context)
    want_output(request, node, context)
    return request


def _want_bias(request: SiteRequest, bias: Value | None, context: Context) -> None:
    """The bias of a request that has its data and its weight."""
    data, weight = request.sites
    numbers = bias_format(context, weight.format)
    if bias is not None and numbers is not None:
        request.want(bias, "bias", numbers, factors=(data.tensor, weight.tensor))


def norm(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """LayerNormalization, InstanceNormalization on integers: the scale is a weight, the bias that of a layer."""
    scale, bias = input_at(node, 1), input_at(node, 2)
    if scale is None or constant(scale) is None or (bias is not None and constant(bias) is None):
        return Skip("scale or bias is computed at run time")
    if bias is not None and row_length(bias) == 0:
        return Skip("the bias is not one number per channel")
    request = SiteRequest("layer")
    request.want_data(node.inputs[0], context.config)  # type: ignore[arg-type]
    request.want(scale, "weight", weight_format(context, node, scale, None))
    _want_bias(request, bias, context)
    want_output(request, node, context)
    return request


def matmul(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """MatMul: one constant side is the weight; the constant Add behind it stays in the float accumulator."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None and b is not None
    if context.config.option("MatMulConstBOnly") and constant(b) is None:
        return Skip("MatMulConstBOnly: the second input is not constant")
    if row.needs_weight and constant(a) is None and constant(b) is None:
        return Skip(f"{context.config.row.title} multiplies two activations in float")
    if (rank(a) or 0) < 1 or (rank(b) or 0) < 1:
        return Skip("the rank of an input is unknown; a run on calibration data tells it")
    request = SiteRequest("matmul")
    for value in (a, b):
        if constant(value) is None:
            request.want_data(value, context.config)
        else:
            # onnxruntime's kernel takes scales along the columns of a matrix on the right; all else is per-tensor
            axis = 1 if row.per_channel and value is b and rank(b) == 2 else None
            request.want(value, "weight", weight_format(context, node, value, axis))
    if not any(site.role == "activation" for site in request.sites):
        return Skip("both inputs are constant")
    add = bias_add(node.outputs[0], context) if row.adds_bias else None
    if add is not None:
        request.absorbed.append(add)
    want_output(request, add or node, context)
    return request


def act(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """Operators with a range of their own on every input and output."""
    if node.op_type == "Concat" and len(node.inputs) < 2:
        return Skip("a Concat of one input")
    if node.op_type == "AveragePool" and any(step != 1 for step in node.attributes.get_ints("dilations", ())):
        return Skip("onnxruntime's integer AveragePool has no dilations, and refuses a model that asks for them")
    if row.joins and not along_channels(node) and not all(zero_at_0(value, context) for value in node.inputs):
        return Skip(ELSEWHERE)
    if not all(_survives(input_at(node, i), context.config.activation) for i in row.exact):
        return Skip(f"input {row.exact[0]} must be a constant that integers hold exactly")
    known = row.known_range(context.config.activation.bits)
    request = SiteRequest("fixed range" if known else "activation")
    for value in data_inputs(node, row):
        request.want_data(value, context.config)
    if request.sites and all(site.role == "constant" for site in request.sites):
        return Skip("all inputs are constant")
    if row.range and context.config.row.shown_float and only_shown(node.outputs[0], context.ops):
        return Skip(SHOWN)
    if node.op_type not in context.aligned or context.silent(node):
        want_output(request, node, context, known)
    elif len(inputs := [site.tensor for site in request.sites]) > 1:  # the output holds what all inputs hold
        want_output(request, node, context, leads=True)
        request.ties |= dict.fromkeys(inputs, node.outputs[0].name or "")
    else:  # the input holds what the output holds
        want_output(request, node, context)
        request.ties[request.sites[-1].tensor] = inputs[0]
    return request


def _survives(value: Value | None, format: Format) -> bool:
    """Whether a constant comes back unchanged from its quantizer."""
    array = constant(value)
    if array is None:
        return False
    q = qparams(array.min(initial=0.0), array.max(initial=0.0), format)
    return bool((dequantize(quantize(array, q, format), q, format) == array).all())


def same(node: Node, row: Op, context: Context) -> SiteRequest | Skip:
    """Operators that only move values: every output has the scale of the input."""
    if node.op_type == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].uses():
        return Skip("its Indices output is read")
    if node.op_type == "Pad" and not _pads_with_zero(node):
        return Skip("pads with a value other than 0")
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "cubic":
        return Skip("cubic interpolation leaves the range of its input")
    if context.config.row.hands_on and node.op_type == "Resize" and _interpolates(node):
        return Skip("values between those that it reads are no codes: it runs in float")
    if context.config.row.shown_float and moves_shown(node, context.ops):
        return Skip(SHOWN)
    request = SiteRequest("same scale")
    source = node.inputs[0]
    assert source is not None
    request.want_data(source, context.config)
    if context.silent(node):
        return request
    last = take_behind(request, node, context)
    for value in last.outputs if last.op_type == "Split" else last.outputs[:1]:
        request.want_data(value, context.config)
        request.ties[value.name or ""] = source.name or ""
    return request


def _interpolates(node: Node) -> bool:
    return node.attributes.get_string("mode", "nearest") != "nearest"


def _pads_with_zero(node: Node) -> bool:
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    value = input_at(node, 2)
    array = constant(value)
    return value is None or (array is not None and not array.any())


RULES: dict[str, Rule] = {
    "layer": layer,
    "matmul": matmul,
    "norm": norm,
    "act": act,
    "fixed": act,
    "clamp": act,
    "same": same,
}
"""Rule by kind; that of clamps is for those that no node before them takes in."""
