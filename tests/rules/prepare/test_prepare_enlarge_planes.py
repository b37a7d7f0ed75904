"""enlarge-planes: repeating by powers of two is doubling plane by plane, and nothing that is computed changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from quantized_models import executed_kernels, quantized
from text_models import applied, assert_same, normal, ops, prepared, reasons, text_model

from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.graph.io import to_proto

OPEN = "(float[N,3,H,W] x) => (float[A,B,C,D] y)"
FLOOR = 'nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"'
NEAR = 'coordinate_transformation_mode = "half_pixel"'


def model(attributes: str, head: str = OPEN, factors: Any = (1, 1, 2, 2), opset: int = 17) -> onnx.ModelProto:
    text = f"g {head} {{ [r] y = Resize <{attributes}> (x, , s) }}"
    return text_model(text, opset=opset, s=np.array(factors, np.float32))


@pytest.mark.parametrize("factor", [2, 4, 16])
@pytest.mark.parametrize(
    "attributes",
    [
        FLOOR,
        NEAR,
        NEAR + ', nearest_mode = "round_prefer_ceil"',
        NEAR.replace("half", "pytorch_half"),
    ],
)
def test_what_repeats_values_doubles_planes(attributes: str, factor: int) -> None:
    proto = model(attributes, factors=(1, 1, factor, factor))
    result = prepared(proto, block=16)
    assert applied(result, "enlarge-planes") == ["r"]
    assert ops(result) == {"Reshape": 2, "Resize": factor.bit_length() - 1}
    assert [node.op_type for node in result.model.graph if node.name == "r"] == ["Resize"]
    for shape in ((1, 3, 5, 7), (2, 3, 1, 4)):
        assert_same(proto, result, {"x": normal(*shape)}, terms=0)


def test_sizes_that_are_known_are_factors() -> None:
    text = f"g (float[2,3,4,5] x) => (float[2,3,8,10] y) {{ [r] y = Resize <{FLOOR}> (x, , , s) }}"
    proto = text_model(text, s=np.array([2, 3, 8, 10]))
    result = prepared(proto, block=16)
    assert applied(result, "enlarge-planes") == ["r"]
    assert_same(proto, result, {"x": normal(2, 3, 4, 5)}, terms=0)


NEGATIVE = {
    "linear": ('mode = "linear"', OPEN, (1, 1, 2, 2), "it does more than repeat values"),
    "corners": ('coordinate_transformation_mode = "align_corners"', OPEN, (1, 1, 2, 2), "it does more than repeat"),
    "rounded": (FLOOR.replace("floor", "round_prefer_floor"), OPEN, (1, 1, 4, 4), "it does more than repeat values"),
    "a line": (FLOOR, "(float[N,3,W] x) => (float[A,B,C] y)", (1, 1, 2), "its factors or the channels"),
    "unknown": (FLOOR, OPEN.replace("3", "K"), (1, 1, 2, 2), "its factors or the channels"),
    "one axis": (FLOOR, OPEN, (1, 1, 2, 1), "it does not enlarge two axes alike"),
    "channels": (FLOOR, OPEN, (1, 2, 2, 2), "it does not enlarge two axes alike"),
    "three": (FLOOR, OPEN, (1, 1, 3, 3), "its factor is not a power of two"),
    "half": (FLOOR, OPEN, (1, 1, 0.5, 0.5), "its factor is not a power of two"),
    "nothing": (FLOOR, OPEN, (1, 1, 1, 1), "its factor is not a power of two"),
}


@pytest.mark.parametrize(("attributes", "head", "factors", "reason"), NEGATIVE.values(), ids=NEGATIVE)
def test_negative(attributes: str, head: str, factors: Any, reason: str) -> None:
    result = prepared(model(attributes, head, factors), block=16)
    assert applied(result, "enlarge-planes") == []
    assert any(found.startswith(reason) for found in reasons(result, "enlarge-planes"))


def test_axes_of_its_own_are_left_alone() -> None:
    text = f"g {OPEN} {{ [r] y = Resize <{FLOOR}, axes = [2, 3, 0, 1]> (x, , s) }}"
    result = prepared(text_model(text, opset=18, s=np.array([2, 2, 1, 1], np.float32)), block=16)
    assert reasons(result, "enlarge-planes") == ["it does not enlarge two axes alike"]


def test_targets_with_channels_first_have_it_as_it_was() -> None:
    assert ops(prepared(model(FLOOR), block=1)) == {"Resize": 1}


def test_what_is_prepared_once_stays() -> None:
    result = prepared(model(FLOOR, factors=(1, 1, 4, 4)), block=16)
    again = prepared(onnx.shape_inference.infer_shapes(to_proto(result.model)), block=16)
    assert set(reasons(again, "enlarge-planes")) == {"it works plane by plane already"}
    assert ops(again) == ops(result)


@pytest.mark.parametrize(("block", "transposed"), [(16, 4), (1, 2)])
def test_between_integer_convolutions_it_moves_integers_with_channels_first(block: int, transposed: int) -> None:
    """Where it is left as it was, onnxruntime moves it to channels last, and needs no transposition around it."""
    text = (
        "g (float[1,4,6,6] x) => (float[1,4,12,12] y) { h = Conv (x, w) "
        f"[r] f = Resize <{FLOOR}> (h, , s) y = Conv (f, w) }}"
    )
    proto = text_model(text, w=normal(4, 4, 1, 1), s=np.array([1, 1, 2, 2], np.float32))
    made = quantized(prepared(proto, block=block).model)
    assert "float" not in {row.status for row in ledger(made.model, made.plan, made.quantized)}
    kernels = executed_kernels(made.quantized)
    assert (kernels["QuantizeLinear"], kernels["DequantizeLinear"], kernels["Transpose"]) == (1, 1, transposed)
