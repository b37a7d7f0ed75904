"""Activation functions between two integer convolutions, as exporters write them: what onnxruntime executes of them."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from quantized_models import executed_kernels, feeds, graph

from quark_onnx import Config, ModelQuantizer, get_default_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph import io
from quark_onnx.opened_job import open_job

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="onnxruntime has other integer kernels on other processors"
)

HEAD = "(float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v, float[4] b, float three = {3.0}, "
HEAD += "float zero = {0.0}, float six = {6.0}, float one = {1.0}, float half = {0.5}, float root = {1.4142135}, "
HEAD += "int64[3] groups = {1, 2, -1}, int64[4] dims = {1, 4, 6, 6}, float[2] ones = {1.0, 1.0}, "
HEAD += "float[2] none = {0.0, 0.0}, float[4,1,1] gamma, float[4,1,1] beta, float[2,4,1,1] e, float[4,2,1,1] f> "
HEAD += "{ h = Conv (x, w, b) "
TAIL = " y = Conv (g, v) }"
SE = "p = GlobalAveragePool (h) q = Conv (p, e) r = Relu (q) t = Conv (r, f, b) "

INTEGER = {
    "HardSwish": ("g = HardSwish (h)", "Add Mul"),
    "torch": ("a = Add (h, three) c = Clip (a, zero, six) m = Mul (h, c) g = Div (m, six)", "Add Mul"),
    "older torch": ("a = Add (h, three) c = Clip (a, zero, six) d = Div (c, six) g = Mul (h, d)", "Add Mul"),
    "with a factor": ("s = HardSigmoid <alpha = 0.16666667> (h) m = Mul (h, s) g = Mul (m, half)", "Add Mul"),
    "SE": (SE + "s = HardSigmoid (t) g = Mul (h, s)", "GlobalAveragePool Conv Conv Mul"),
    "SE, Relu6": (
        SE + "a = Add (t, three) c = Clip (a, zero, six) d = Div (c, six) g = Mul (h, d)",
        "GlobalAveragePool Conv Conv Mul",
    ),
    "SE, Sigmoid": (SE + "s = Sigmoid (t) g = Mul (h, s)", "GlobalAveragePool Conv Conv Sigmoid Mul"),
    "SiLU": ("s = Sigmoid (h) g = Mul (h, s)", "Sigmoid Mul"),
    "SiLU, Paddle": ("i = Mul (h, one) s = Sigmoid (i) g = Mul (h, s)", "Sigmoid Mul"),
}
FLOAT = {
    "Gelu": ("d = Div (h, root) u = Erf (d) a = Add (u, one) m = Mul (h, a) g = Mul (m, half)", "Gelu"),
    "Mish": ("s = Softplus (h) t = Tanh (s) g = Mul (h, t)", "Softplus Tanh Mul"),
    "Softsign": ("s = Softsign (h) g = Mul (h, s)", "Softsign Mul"),
    "GroupNorm": (
        "r = Reshape (h, groups) i = InstanceNormalization (r, ones, none) j = Reshape (i, dims) "
        "m = Mul (j, gamma) g = Add (m, beta)",
        "Reshape InstanceNormalization Reshape Mul Add",
    ),
}


def executed(body: str, **fields: Any) -> Counter[str]:
    """What onnxruntime executes of the quantized model, but for changes of layout."""
    model = graph(HEAD + body + TAIL)
    config = Config(replace(get_default_config("S8S8_AAWS"), **fields))
    result = ModelQuantizer(config).quantize_model(io.to_proto(model), None, feeds(model))
    found = executed_kernels(io.load(result.model))
    del found["Transpose"]
    return found


def integers(names: str) -> Counter[str]:
    return Counter(f"QLinear{name}" for name in names.split())


@pytest.mark.parametrize(("body", "kernels"), INTEGER.values(), ids=INTEGER)
def test_gates_run_on_integers(body: str, kernels: str) -> None:
    """A quantizer at either end, integer kernels in between; no Clip and no factor is left to compute."""
    ends = {"QuantizeLinear": 1, "DequantizeLinear": 1, "QLinearConv": 2}
    assert executed(body) == integers(kernels) + Counter(ends)


@pytest.mark.parametrize(("body", "kernels"), FLOAT.values(), ids=FLOAT)
def test_what_has_no_integer_kernel_has_no_quantizer_inside(body: str, kernels: str) -> None:
    """One QuantizeLinear behind it. In front onnxruntime dequantizes once for each reader."""
    found = executed(body)
    assert 2 <= found.pop("DequantizeLinear") <= 3
    assert found == Counter(kernels.split()) + Counter({"QuantizeLinear": 2, "QLinearConv": 2})


def test_symmetric_activations_keep_the_clip() -> None:
    """Their quantizer does not begin at 0. The operators stay as they are."""
    found = executed(INTEGER["HardSwish"][0], extra_options={"ActivationSymmetric": True})
    assert found["QLinearMul"] == found["QLinearAdd"] == 0
    assert found["HardSigmoid"] == 1  # how onnxruntime computes HardSwish


def test_wider_activations_keep_the_operator() -> None:
    found = executed(INTEGER["HardSwish"][0], activation_type="uint16")
    assert (found["HardSigmoid"], found["Add"]) == (1, 0)


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("qnn", {"Conv": 2, "HardSwish": 1}),
        ("tensorrt", {"Conv": 2, "HardSwish": 1}),
        ("vitisai", {"Conv": 2, "HardSwish": 1}),
        ("cpu-avx2", {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 1}),
    ],
)
def test_targets_with_the_operator_keep_it(target: str, left: dict[str, int]) -> None:
    kinds = {"qnn": "uint8"}
    config = QuantizationConfig(target=target, activation_type=kinds.get(target, "int8"))
    job = open_job(io.to_proto(graph(HEAD + "g = HardSwish (h)" + TAIL)), config)
    assert Counter(node.op_type for node in job.prepared.graph) == left
