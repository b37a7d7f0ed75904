"""Which weights must have safe pairs, which are stored as bytes for it, and which need nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from quantized_models import graph, placed

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.plan import Site
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.stages.place.saturating_weights import ASKED, BYTES, NO_ROWS, NO_ZERO, ORDERS, SEVEN, TWO_WAYS

CONV = "(float[1,4,6,6] x) => (float[1,8,4,4] y) <float[8,4,3,3] w> { [n] y = Conv (x, w) }"
GROUPED = "(float[1,4,6,6] x) => (float[1,8,4,4] y) <float[8,2,3,3] w> { [n] y = Conv <group=2> (x, w) }"
MULTIPLIER = "(float[1,4,6,6] x) => (float[1,8,4,4] y) <float[8,1,3,3] w> { [n] y = Conv <group=4> (x, w) }"
DEPTHWISE = "(float[1,4,6,6] x) => (float[1,4,4,4] y) <float[4,1,3,3] w> { [n] y = Conv <group=4> (x, w) }"
GEMM = "(float[2,4] x) => (float[2,5] y) <float[5,4] w> { [n] y = Gemm <transB=1> (x, w) }"
MATMUL = "(float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w> { [n] y = MatMul (x, w) }"
LEFT = "(float[2,4] x) => (float[3,4] y) <float[3,2] w> { [n] y = MatMul (w, x) }"
BATCHED = "(float[2,3,4] x) => (float[2,3,5] y) <float[2,4,5] w> { [n] y = MatMul (x, w) }"
DECONV = "(float[1,4,6,6] x) => (float[1,4,8,8] y) <float[4,4,3,3] w> { [n] y = ConvTranspose (x, w) }"
BOTH_WAYS = """(float[2,4] x, float[2,4] z) => (float[2,4] y, float[2,4] v) <float[4,4] w>
    { [n] y = Gemm <transB=1> (x, w) [m] v = Gemm (z, w) }"""

SAFE: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv": (CONV, {}),
    "per channel": (CONV, {"per_channel": True}),
    "grouped": (GROUPED, {}),
    "two channels out per group": (MULTIPLIER, {}),
    "Gemm": (GEMM, {}),
    "MatMul": (MATMUL, {}),
    "MatMul per channel": (MATMUL, {"per_channel": True}),
    "Gemm per channel": (GEMM, {"per_channel": True}),
    "uint8 activations": (CONV, {"activation_type": "uint8"}),
    "at run time": (MATMUL, {"activation_type": "uint8", "use_dynamic_quant": True}),
}
FREE: dict[str, tuple[str, dict[str, Any]]] = {
    "depthwise has exact code": (DEPTHWISE, {}),
    "on the left": (LEFT, {}),
    "ConvTranspose has no integer kernel": (DECONV, {}),
    "16-bit activations": (CONV, {"activation_type": "int16"}),
    "4-bit weights": (MATMUL, {"weight_type": "int4"}),
    "uint8 weights": (CONV, {"weight_type": "uint8", "activation_type": "uint8"}),
    "7 bits": (CONV, {"reduce_range": True}),
    "a target with 7 bits": (CONV, {"target": "cpu-avx2"}),
    "weights alone": (MATMUL, {"WeightsOnly": True}),
    "scales that change along a sum": (MATMUL, {"TensorQuantOverrides": {"w": [{"axis": 0}]}}),
    "another target": (CONV, {"target": "qnn", "activation_type": "uint8"}),
    "switched off": (CONV, {"weight_pairs": "off"}),
    "depthwise on OpenVINO": (DEPTHWISE, {"target": "openvino"}),
    "a zero point on OpenVINO, which makes it a float layer": (CONV, {"target": "openvino", "WeightSymmetric": False}),
    "switched off on OpenVINO": (CONV, {"target": "openvino", "weight_pairs": "off"}),
}
TAPS: dict[str, str] = {
    "Conv": CONV,
    "three channels": CONV.replace("1,4,6,6", "1,3,6,6").replace("8,4,3,3", "8,3,3,3"),
    "an even number of channels in groups": GROUPED,
    "an odd number at one position": GROUPED.replace("1,4,6,6", "1,6,4,4").replace("8,2,3,3", "8,3,1,1"),
    "Gemm": GEMM,
    "MatMul": MATMUL,
    "ConvTranspose behind what is never negative": DECONV.replace("{ [n]", "{ r = Relu (x) [n]").replace(
        "(x, w)", "(r, w)"
    ),
}
SEVEN_BITS: dict[str, tuple[str, str]] = {
    "an odd number of channels in groups": (
        GROUPED.replace("1,4,6,6", "1,6,6,6").replace("8,2,3,3", "8,3,3,3"), ORDERS,
    ),
    "two channels out per group": (MULTIPLIER, ORDERS),
    "one channel": (CONV.replace("1,4,6,6", "1,1,6,6").replace("8,4,3,3", "8,1,3,3"), ORDERS),
    "a batch of matrices": (BATCHED, NO_ROWS),
    "read in two directions": (BOTH_WAYS, TWO_WAYS),
}  # fmt: skip
UNSIGNED: dict[str, tuple[str, dict[str, Any], str]] = {
    "asked": (CONV, {"weight_pairs": "uint8"}, ASKED),
    "a zero point": (CONV, {"WeightSymmetric": False}, NO_ZERO),
    "a batch of matrices": (BATCHED, {}, NO_ROWS),
    "read in two directions": (BOTH_WAYS, {}, TWO_WAYS),
    "at run time": (MATMUL, {"activation_type": "uint8", "use_dynamic_quant": True, "weight_pairs": "uint8"}, ASKED),
}


def weight(text: str, fields: dict[str, Any]) -> tuple[Site, dict[str, str]]:
    plan = placed(graph(text), **fields)
    return plan.sites["w"], dict(plan.remarks)


@pytest.mark.parametrize(("text", "fields"), SAFE.values(), ids=SAFE)
def test_weights_beside_bytes_have_safe_pairs(text: str, fields: dict[str, Any]) -> None:
    site, remarks = weight(text, fields)
    assert (site.format.dtype, site.format.safe_pairs) == ("int8", "row")
    assert "w" not in remarks
    freely, _ = weight(text, {**fields, "weight_pairs": "off"})
    assert replace(site.format, safe_pairs="") == freely.format


@pytest.mark.parametrize(("text", "fields"), FREE.values(), ids=FREE)
def test_other_weights_are_rounded_freely(text: str, fields: dict[str, Any]) -> None:
    site, remarks = weight(text, fields)
    assert not site.format.safe_pairs
    assert site.format.signed is (fields.get("weight_type") != "uint8")
    assert "w" not in remarks


@pytest.mark.parametrize(("text", "fields", "why"), UNSIGNED.values(), ids=UNSIGNED)
def test_what_cannot_have_safe_pairs_is_stored_as_bytes(text: str, fields: dict[str, Any], why: str) -> None:
    site, remarks = weight(text, fields)
    assert (site.format.dtype, site.format.safe_pairs) == ("uint8", "")
    assert remarks["w"] == BYTES.format(why)


@pytest.mark.parametrize("how", ["auto", "safe"])
@pytest.mark.parametrize("text", TAPS.values(), ids=TAPS)
def test_pairs_of_openvino_are_those_of_a_tap(text: str, how: str) -> None:
    site, remarks = weight(text, {"target": "openvino", "weight_pairs": how})
    assert (site.format.dtype, site.format.bits, site.format.safe_pairs) == ("int8", 8, "tap")
    assert "w" not in remarks


@pytest.mark.parametrize(("text", "why"), SEVEN_BITS.values(), ids=SEVEN_BITS)
def test_where_processors_differ_openvino_has_seven_bits(text: str, why: str) -> None:
    """Codes up to 63: whichever two are added, they are safe. onnxruntime has one order, or takes bytes."""
    site, remarks = weight(text, {"target": "openvino"})
    assert (site.format.dtype, site.format.hi, site.format.safe_pairs) == ("int8", 63, "")
    assert remarks["w"] == SEVEN.format(why)
    on_cpu, _ = weight(text, {})
    assert on_cpu.format.safe_pairs == "row" or on_cpu.format.dtype == "uint8"


def test_openvino_takes_no_bytes() -> None:
    with pytest.raises(ConfigError, match=r"target 'openvino' computes in float with uint8 weights.*'safe'"):
        QuantizationConfig(weight_pairs="uint8", target="openvino")


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "qnn", "activation_type": "uint8"},
        {"weight_type": "int4"},
        {"weight_type": "uint8", "activation_type": "uint8"},
    ],
)
def test_a_choice_with_nothing_to_act_on_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="weight_pairs='safe' is for int8 weights on CPU targets"):
        QuantizationConfig(weight_pairs="safe", **fields)


def test_an_unknown_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"weight_pairs.*'saef'.*did you mean 'safe'"):
        QuantizationConfig(weight_pairs="saef")
