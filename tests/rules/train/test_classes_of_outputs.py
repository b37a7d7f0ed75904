"""Which outputs are compared as classes: probabilities and logits, and nothing that only has two axes, too."""

from __future__ import annotations

import pytest
from quantized_models import graph, quantized

from quark_onnx.graph.element_types import infer_types
from quark_onnx.graph.loss_terms import Classes, classes

LOGITS, NONE = Classes(1, probabilities=False), None
OUTPUTS = {
    "y = Gemm (x, w, b)": LOGITS,
    "h = MatMul (x, w) y = Add (h, b)": LOGITS,
    "h = MatMul (x, w) a = Add (b, h) t = Constant <value = float {0.1}> () y = Mul (a, t)": LOGITS,
    "s = Constant <value = int64[2] {1, 5}> () h = Gemm (x, w, b) r = Relu (h) y = Reshape (r, s)": NONE,
    "s = Constant <value = int64[2] {1, 5}> () h = Gemm (x, w, b) y = Reshape (h, s)": LOGITS,
    "h = Gemm (x, w, b) y = Softmax (h)": Classes(1, probabilities=True),
    "h = Gemm (x, w, b) y = Softmax <axis = 0> (h)": Classes(0, probabilities=True),
    "h = Gemm (x, w, b) y = Tanh (h)": NONE,
    "h = Gemm (x, w, b) y = Sigmoid (h)": NONE,
    "h = Gemm (x, w, b) y = Relu (h)": NONE,
    "h = Gemm (x, w, b) n = ReduceL2 <axes = [1]> (h) y = Div (h, n)": NONE,
    "h = Gemm (x, w, b) y = LayerNormalization (h, b)": NONE,
}


@pytest.mark.parametrize("nodes", OUTPUTS)
def test_classes(nodes: str) -> None:
    text = f"(float[1,8] x) => (float[1,5] y) <float[8,5] w, float[5] b> {{ {nodes} }}"
    model = graph(text)
    for one in (model, quantized(model).quantized):
        infer_types(one)
        assert classes(one.graph.outputs[0]) == OUTPUTS[nodes]


def test_one_number_for_a_sample_is_no_class() -> None:
    model = graph("(float[1,8] x) => (float[1,1] y) <float[8,1] w> { y = MatMul (x, w) }")
    assert classes(model.graph.outputs[0]) is None
