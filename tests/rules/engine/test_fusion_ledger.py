"""The ledger tells what onnxruntime really does with each node of small graphs (1.31 on x64)."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from operator_examples import TABLE
from quantized_models import executed_kernels, graph, graph_between, quantized

from quark_onnx.core.operators import CPU
from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.engine.ledger_rows import Row, fused
from quark_onnx.engine.onnxruntime_ledger import ADDED, BETWEEN, NO_KERNEL
from quark_onnx.graph import Model

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="onnxruntime has other integer kernels on other processors"
)

CONV = "(float[1,4,8,8] x) => (float[A,B,C,D] y) <float[4,4,3,3] w, float[4,4,3,3] v, float[4,4,1,1] u,"
CONV += " float lo = {-1}, float hi = {1}>"


def rows(text: str, opset: int = 17, **fields: Any) -> dict[str, Row]:
    return told(graph(text, opset), **fields)


def told(model: Model, **fields: Any) -> dict[str, Row]:
    made = quantized(model, **fields)
    found = ledger(made.model, made.plan, made.quantized)
    assert [row.node for row in found] == [node.name for node in made.model.graph]
    assert [row.op_type for row in found] == [node.op_type for node in made.model.graph]
    assert all(bool(row.reason) is (row.status == "float") for row in found)
    return {row.node: row for row in found}


def statuses(text: str, **fields: Any) -> dict[str, str]:
    """The kernel of what runs on integers, else the status."""
    found = rows(text, **fields).items()
    return {name: row.kernel if row.status == "integer" else row.status for name, row in found}


@pytest.mark.parametrize("kinds", [{}, {"activation_type": "uint8"}, {"ActivationSymmetric": True}])
@pytest.mark.parametrize("op_type", TABLE)
def test_every_operator_runs_as_its_row_says(op_type: str, kinds: dict[str, Any]) -> None:
    row = told(graph_between(TABLE[op_type][0]), **kinds)["n"]
    operator = CPU[op_type]
    if operator.kind == "clamp":
        symmetric = "ActivationSymmetric" in kinds
        assert (row.status, row.reason) == (("float", BETWEEN) if symmetric else ("absorbed", ""))
    elif op_type == "Identity":
        assert row.status == "absorbed"  # onnxruntime drops it
    elif operator.fuses:
        assert row.status == "integer"
        assert row.kernel in operator.kernels or row.kernel == op_type
    else:
        assert (row.status, row.kernel, row.reason) == ("float", op_type, NO_KERNEL)


GRAPHS = {
    "layers in a row": (
        CONV + " { [a] h = Conv (x, w) [b] y = Conv (h, v) }",
        {"a": "QLinearConv", "b": "QLinearConv"},
    ),
    "clamps between layers": (
        CONV + " { [a] h = Conv (x, w) [r] g = Relu (h) [b] f = Conv (g, v) [s] y = Relu (f) }",
        {"a": "QLinearConv", "r": "absorbed", "b": "QLinearConv", "s": "absorbed"},
    ),
    "a clamp that no quantizer can do": (
        CONV + " { [a] h = Conv (x, w) [r] g = Clip (h, lo, hi) [b] y = Conv (g, v) }",
        {"a": "QLinearConv", "r": "float", "b": "QLinearConv"},
    ),
    "a residual block": (
        CONV + " { [a] h = Conv <pads=[1,1,1,1]> (x, w) [b] g = Conv <pads=[1,1,1,1]> (h, v) [s] f = Add (h, g)"
        " [r] e = Relu (f) [p] d = GlobalAveragePool (e) [q] y = Conv (d, u) }",
        {
            "a": "QLinearConv",
            "b": "QLinearConv",
            "s": "QLinearAdd",
            "r": "absorbed",
            "p": "QLinearGlobalAveragePool",
            "q": "QLinearConv",
        },
    ),
    "a square": (
        CONV + " { [a] h = Conv (x, w) [m] g = Mul (h, h) [b] y = Conv (g, v) }",
        {"a": "QLinearConv", "m": "QLinearMul", "b": "QLinearConv"},
    ),
    "a square that leaves the model": (
        CONV + " { [a] h = Conv (x, w) [m] y = Mul (h, h) }",
        {"a": "QLinearConv", "m": "float"},
    ),
    "movers between layers": (
        CONV + " { [a] h = Conv (x, w) [p] g = MaxPool <kernel_shape=[2,2]> (h) [b] y = Conv (g, v) }",
        {"a": "QLinearConv", "p": "NhwcMaxPool", "b": "QLinearConv"},
    ),
    "a bias behind a MatMul": (
        "(float[2,4] x) => (float[2,3] y) <float[4,5] w, float[5] b, float[5,3] v>"
        " { [m] h = MatMul (x, w) [a] g = Add (h, b) [r] f = Relu (g) [n] y = MatMul (f, v) }",
        {"m": "QGemm", "a": "absorbed", "r": "absorbed", "n": "MatMulIntegerToFloat"},
    ),
    "a bias and a clamp behind a MatMul of three axes": (
        "(float[2,3,4] x) => (float[2,3,6] y) <float[4,5] w, float[5] b, float[5,6] v>"
        " { [m] h = MatMul (x, w) [a] g = Add (h, b) [r] f = Relu (g) [n] y = MatMul (f, v) }",
        {"m": "MatMulIntegerToFloat", "a": "float", "r": "absorbed", "n": "MatMulIntegerToFloat"},
    ),
    "attention": (
        "(float[2,3,4] x) => (float[2,3,4] y) <float[4,4] q, float[4,4] k>"
        " { [a] h = MatMul (x, q) [b] g = MatMul (x, k) [t] f = Transpose <perm=[0,2,1]> (g)"
        " [s] e = MatMul (h, f) [p] d = Softmax (e) [m] y = MatMul (d, x) }",
        {
            "a": "QLinearMatMul",
            "b": "QLinearMatMul",
            "t": "Transpose",
            "s": "MatMulIntegerToFloat",
            "p": "float",
            "m": "MatMulIntegerToFloat",
        },
    ),
    "an embedding": (
        "(int64[2] i) => (float[2,5] y) <float[9,4] e, float[4,5] w> { [g] h = Gather (e, i) [m] y = MatMul (h, w) }",
        {"g": "Gather", "m": "MatMulIntegerToFloat"},
    ),
}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("text", "expected"), GRAPHS.values(), ids=GRAPHS)
def test_small_graphs(text: str, expected: dict[str, str], per_channel: bool) -> None:
    assert statuses(text, per_channel=per_channel) == expected


@pytest.mark.parametrize(("text", "expected"), GRAPHS.values(), ids=GRAPHS)
def test_nothing_is_claimed_of_what_was_not_quantized(text: str, expected: dict[str, str]) -> None:
    found = rows(text, nodes_to_exclude=["*"])
    assert {row.status for row in found.values()} == {"float"}
    assert {row.reason for row in found.values()} == {"named in nodes_to_exclude"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"weight_type": "int4"}, "onnxruntime did not fuse it (int4 has no integer kernel)"),
        ({"activation_type": "int16"}, "onnxruntime did not fuse it (int16 has no integer kernel)"),
        ({"activation_type": "uint16"}, "onnxruntime did not fuse it (uint16 has no integer kernel)"),
    ],
)
def test_formats_without_kernels(fields: dict[str, str], reason: str) -> None:
    found = rows(CONV + " { [a] y = Conv (x, w) }", opset=21, **fields)["a"]
    assert (found.status, found.kernel, found.reason) == ("float", "Conv", reason)


@pytest.mark.parametrize(("kind", "status"), [("int8", "integer"), ("int16", "float")])
def test_products_of_activations_that_get_another_name_are_float(kind: str, status: str) -> None:
    """What scales scores goes into a float product, which onnxruntime then names itself."""
    text = """(float[2,4,8] x) => (float[2,4,4] y) <float half = {0.5}> {
        t = Transpose <perm = [0,2,1]> (x) [m] s = MatMul (x, t) y = Mul (s, half) }"""
    assert rows(text, opset=21, activation_type=kind)["m"].status == status


def test_a_weight_on_the_left_has_no_kernel() -> None:
    row = rows("(float[2,4] x) => (float[3,4] y) <float[3,2] w> { [m] y = MatMul (w, x) }")["m"]
    assert (row.status, row.kernel) == ("float", "MatMul")
    assert row.reason == "onnxruntime did not fuse it (its neighbours do not meet the kernel's conditions)"


def test_reasons_of_placement_and_of_ranges_are_kept() -> None:
    text = "(float[2,4,1,1] x, float[1,4,1,1] k) => (float[A,B,C,D] y, float[A,B,C,D] z) <float[4,4,1,1] w, "
    nodes = (
        "float[4,4,1,1] v> { [m] h = Conv (x, w) [a] g = Concat <axis=0> (h, k) [e] z = Erf (h) [n] y = Conv (g, v) }"
    )
    model = graph(text + nodes)
    data = [{"x": np.ones((2, 4, 1, 1), np.float32), "k": np.full((1, 4, 1, 1), -np.inf, np.float32)}]
    made = quantized(model, data)
    found = {row.node: row.reason for row in ledger(model, made.plan, made.quantized)}
    assert found == {
        "m": "",
        "a": "'k': 4 values seen in calibration are infinite or NaN",
        "e": "Erf is not in the operator table of the CPU target",
        "n": "'g': 4 values seen in calibration are infinite or NaN",
    }


def test_a_bias_behind_a_product_that_returns_floats_is_added_in_float() -> None:
    text = (
        "(float[2,3,4] x) => (float[2,3,5] y) <float[4,5] w, float[5] b> { [m] h = MatMul (x, w) [a] y = Add (h, b) }"
    )
    found = rows(text)
    assert (found["m"].kernel, found["a"].kernel, found["a"].reason) == ("MatMulIntegerToFloat", "Add", ADDED)


def test_what_moves_the_floats_of_a_layer_is_float() -> None:
    text = (
        "(float[2,4] x) => (float[5,2] y) <float[4,5] w, float[5] b> { [m] h = Gemm (x, w, b) [t] y = Transpose (h) }"
    )
    found = rows(text)
    assert (found["m"].kernel, found["t"].status) == ("QGemm", "float")


def test_fused_counts_integer_kernels_by_operator() -> None:
    found = list(rows(GRAPHS["a residual block"][0]).values())
    assert fused(found, "Conv") == 3
    assert fused(found, "Conv", "Add", "Relu") == 4
    assert fused(found, "Gemm") == 0


def test_names_that_look_like_onnxruntimes_own() -> None:
    """Layers get `_token_…` appended, and Transposes of that name are inserted; the ledger must not mix them up."""
    text = CONV + " { [a_token_1] h = Conv (x, w) [a] g = Erf (h) [Transpose] y = Transpose (g) }"
    found = rows(text)
    assert (found["a_token_1"].status, found["a"].status, found["Transpose"].status) == ("integer", "float", "float")


def test_the_executed_graph_has_what_the_ledger_counts() -> None:
    made = quantized(graph(GRAPHS["a residual block"][0]))
    kinds = executed_kernels(made.quantized)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["Conv"]) == (3, 1, 0)
