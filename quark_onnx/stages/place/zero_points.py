"""Tensors whose zero point is 0 whatever their range: those that are never negative, unless it must be in the middle.

OpenVINO's kernels of transposed convolutions take no other, and what it joins along another axis than that of channels
has a zero point for each part, which no layer behind it takes.
"""

from __future__ import annotations

from quark_onnx.graph import Node, Value
from quark_onnx.graph.view import is_op, rank
from quark_onnx.stages.place.handed_codes import hands_on
from quark_onnx.stages.place.never_quantized import data_inputs
from quark_onnx.stages.place.shared_scales import non_negative
from quark_onnx.stages.place.site_request import Context

ELSEWHERE = "what it reads may be negative: with a zero point other than 0 the target runs it in float"


def zero_at_0(value: Value | None, context: Context) -> bool:
    """Whether the quantizer of the value has the zero point 0 for sure; so has that of a missing one."""
    if value is None or context.config.activation.symmetric:
        return value is None
    if non_negative(value):
        return True
    producer = value.producer()
    if producer is None or not is_op(producer, *context.ops) or not hands_on(producer, context.ops):
        return False
    return all(zero_at_0(one, context) for one in data_inputs(producer, context.ops[producer.op_type]))


def along_channels(node: Node) -> bool:
    """Whether a Concat joins along axis 1."""
    axis = node.attributes.get_int("axis", 1)
    return axis == 1 or (axis < 0 and axis + (rank(node.outputs[0]) or 0) == 1)
