"""OpenVINO's ledger and its certificates name the same products: those on integers, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from openvino_installed import needs_openvino
from quantized_models import graph, quantized

from quark_onnx.core.operators import LAYERS
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.engine.ledger_rows import certificates_of
from quark_onnx.engine.proof_for_target import prove_for
from quark_onnx.engine.runtimes.openvino.cpu import certify

IMAGE = (
    "(float[1,16,8,8] x) => (float[A,B,C,D] y) <float[16,16,3,3] w, float[16] b, float[16,1,1] k, float[16,16,2,2] v,"
    " float[16,4,3,3] g, float[16] one>"
)
ROW = "(float[8,16] x) => (float[A,B] y) <float[16,32] w, float[32] b, float[32,16] v>"
GRAPHS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "a normalization": (IMAGE + "{ [a] h = Conv (x, w) [n] y = BatchNormalization (h, one, b, b, hi) }", {}, {"a"}),
    "a factor": (IMAGE + "{ [a] h = Conv (x, w) [m] y = Mul (h, k) }", {}, {"a"}),
    "Gemm": (ROW + "{ [a] y = Gemm (x, w, b) }", {}, {"a"}),
    "an addend": (ROW + "{ [a] h = MatMul (x, w) [s] y = Add (h, b) }", {}, {"a"}),
    "one kernel": (ROW + "{ [a] h = MatMul (x, w) [r] g = Relu (h) [c] y = MatMul (g, v) }", {}, {"a", "c"}),
    "one kernel of Gemm": (ROW + "{ [a] h = Gemm (x, w, b) [r] g = Relu (h) [c] y = Gemm (g, v) }", {}, {"a", "c"}),
    "a float product in one kernel": (
        ROW + "{ [a] h = MatMul (x, w) [r] g = Relu (h) [c] y = MatMul (g, v) }", {"nodes_to_exclude": ["c"]}, {"a"},
    ),
    "groups": (IMAGE + "{ [a] y = Conv <group=4> (x, g) }", {}, {"a"}),
    "ConvTranspose": (IMAGE + "{ [r] h = Relu (x) [a] y = ConvTranspose (h, v) }", {}, {"a"}),
    "a ConvTranspose in float": (IMAGE + "{ [a] y = ConvTranspose (x, v) }", {}, set()),
    "weights alone": (ROW + "{ [a] y = MatMul (x, w) }", {"WeightsOnly": True}, set()),
}  # fmt: skip


@needs_openvino
@pytest.mark.parametrize(("text", "fields", "expected"), GRAPHS.values(), ids=GRAPHS)
def test_products_on_integers_have_certificates(text: str, fields: dict[str, Any], expected: set[str]) -> None:
    model = graph(text, hi=np.full(16, 6, np.float32))
    made = quantized(model, target="openvino", per_channel=True, **fields)
    rows, _ = prove_for(TARGETS["openvino"], made.model, made.plan, made.quantized, ())
    assert {row.node for row in rows if row.op_type in LAYERS and row.status == "integer"} == expected
    assert certificates_of(rows).keys() == certify(made.quantized).keys() == expected


@needs_openvino
def test_weights_that_are_quantized_in_the_model() -> None:
    """As NNCF writes them, each behind quantizers of its own; names of layers are hidden by what they take in."""
    text = """(float[1,16,8,8] x) => (float[A,B,C,D] y) <float s = {0.1}, uint8 t = {128}, float u = {0.01},
        int8 o = {0}, float[16,16,3,3] w, float[16,1,1] k> {
        [q] a = QuantizeLinear (x, s, t) [d] b = DequantizeLinear (a, s, t)
        [e] c = QuantizeLinear (w, u, o) [f] g = DequantizeLinear (c, u, o) [n] h = Conv (b, g) [m] y = Mul (h, k) }"""
    assert certify(graph(text)).keys() == {"n"}
