"""The ledger tells what OpenVINO does with each node of small graphs, and why it computes some in float (2026.4)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino_installed import needs_openvino
from operator_examples import TABLE
from quantized_models import graph, graph_between, quantized
from text_models import normal

from quark_onnx import ModelQuantizer, QuantizationConfig
from quark_onnx.core.operators import LAYERS
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.threads import VARIABLE
from quark_onnx.engine.executed_work import PRODUCTS, on_integers, work_by_node
from quark_onnx.engine.fusion_ledger import ledger
from quark_onnx.engine.ledger_rows import Row
from quark_onnx.engine.runtimes.openvino.cpu import executed_nodes
from quark_onnx.engine.runtimes.openvino.names import labelled
from quark_onnx.engine.runtimes.openvino.reasons import BETWEEN, STRIDES, why_float
from quark_onnx.engine.runtimes.runtime import Executed
from quark_onnx.graph import Model, io

IMAGE = (
    "(float[1,16,8,8] x) => (float[A,B,C,D] y) <float[16,16,3,3] w, float[16,16,3,3] v, float[16,1,1] k, float[16] b,"
)
IMAGE += " float lo = {0}, float hi = {6}, float[16] one, int64[8] p = {0,0,1,1,0,0,1,1}>"
ROW = "(float[2,16] x) => (float[A,B] y) <float[16,32] w, float[32] b, float[32,16] v>"


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, OpenVINO makes one kernel of two products and what is between them."""
    monkeypatch.setenv(VARIABLE, "2")


def told(model: Model, **fields: Any) -> dict[str, Row]:
    """Rows by node; there are as many layers on integers as OpenVINO executes integer products."""
    made = quantized(model, **({"target": "openvino", "per_channel": True} | fields))
    rows = ledger(made.model, made.plan, made.quantized, TARGETS["openvino"])
    assert [row.node for row in rows] == [node.name for node in made.model.graph]
    assert all(bool(row.reason) is (row.status == "float") for row in rows)
    executed = [one for one in executed_nodes(made.quantized) if one.op_type in PRODUCTS and one.op_type != "Subgraph"]
    layers = Counter(row.status == "integer" for row in rows if row.op_type in LAYERS)
    assert layers == Counter(on_integers(one) for one in executed)
    return {row.node: row for row in rows}


GRAPHS = {
    "layers with biases and clamps": (
        IMAGE + " { [a] h = Conv (x, w, b) [r] g = Relu (h) [c] f = Conv (g, v) [s] y = Clip (f, lo, hi) }",
        {"a": "integer", "r": "absorbed", "c": "integer", "s": "absorbed"},
    ),
    "a layer whose name is lost in the product behind it": (
        IMAGE + " { [a] h = Conv (x, w) [m] y = Mul (h, k) }",
        {"a": "integer", "m": "absorbed"},
    ),
    "a layer whose name is lost in a normalization": (
        IMAGE + " { [a] h = Conv (x, w) [n] y = BatchNormalization (h, one, b, b, hi16) }",
        {"a": "integer", "n": "absorbed"},
    ),
    "Swish": (
        IMAGE + " { [a] h = Conv (x, w) [g] s = Sigmoid (h) [m] f = Mul (h, s) [c] y = Conv (f, v) }",
        {"a": "integer", "g": "absorbed", "m": "absorbed", "c": "integer"},
    ),
    "a mover of codes, and one of floats": (
        IMAGE + " { [a] h = Conv (x, w) [p] f = MaxPool <kernel_shape=[2,2]> (h) [c] g = Conv (f, v)"
        " [q] e = Softmax (g) [m] y = MaxPool <kernel_shape=[2,2]> (e) }",
        {"a": "integer", "p": "integer", "c": "integer", "q": "float", "m": "float"},
    ),
    "Gemm, which becomes three operators": (
        ROW + " { [a] h = Gemm (x, w, b) [r] g = Relu (h) [c] y = MatMul (g, v) }",
        {"a": "integer", "r": "absorbed", "c": "integer"},
    ),
    "a layer that nothing is taken of": (
        IMAGE + " { [a] h = Conv (x, w) [e] g = Erf (h) [c] y = Conv (g, v) }",
        {"a": "integer", "e": "float", "c": "integer"},
    ),
}


@needs_openvino
@pytest.mark.parametrize(("text", "expected"), GRAPHS.values(), ids=GRAPHS)
def test_small_graphs(text: str, expected: dict[str, str]) -> None:
    model = graph(text, hi16=np.full(16, 6, np.float32))
    assert {name: row.status for name, row in told(model).items()} == expected
    excluded = told(model, nodes_to_exclude=["*"])
    assert {row.status for row in excluded.values()} == {"float"}
    assert {row.reason for row in excluded.values() if row.op_type in LAYERS} == {"named in nodes_to_exclude"}


@needs_openvino
def test_names_that_look_like_openvinos_own() -> None:
    """Commas separate names there, suffixes are put behind them, and layers at the end get the name of the output."""
    model = graph(IMAGE + " { [h] a = Conv (x, w) [p] g = Erf (a) [y] f = Conv (g, v) [q] y = Erf (f) }")
    for node in model.graph:
        node.name = {"p": "a,y_original", "q": "h/WithoutBiases"}.get(node.name or "", node.name)
    found = {name: row.status for name, row in told(model).items()}
    assert found == {"h": "integer", "a,y_original": "float", "y": "integer", "h/WithoutBiases": "float"}


# why a quantized node is float


def around(op: str, left: tuple[str, int], right: tuple[str, int]) -> Model:
    """A product [n] of a quantized input and a quantized weight, or other input; types and zero points of both."""
    shape, other = ("float[1,16,8,8]", (16, 16, 3, 3)) if op != "MatMul" else ("float[1,2,8,16]", (1, 2, 16, 8))
    weight, make = (", float[1,2,16,8] z", "[r] w = QuantizeLinear (z, s, u)") if op == "MatMul" else ("", "")
    text = f"""({shape} x{weight}) => (float[A,B,C,D] y) <float s = {{0.1}}, {left[0]} t = {{{left[1]}}},
        {right[0]} u = {{{right[1]}}}> {{ [q] a = QuantizeLinear (x, s, t) [d] b = DequantizeLinear (a, s, t) {make}
        [e] f = DequantizeLinear (w, s, u) [n] y = {op} (b, f) }}"""
    codes = np.random.default_rng(0).integers(1, 100, other).astype(right[0])
    return graph(text, 21, **({} if make else {"w": codes}))


U8, S8 = ("uint8", 0), ("int8", 0)
SHIFTED = ("uint8", 130)
CASES = [
    ("Conv", SHIFTED, S8, ""),
    ("Conv", S8, S8, ""),
    ("Conv", U8, ("uint8", 128), "its weight 'w' is uint8 with zero point 128, and OpenVINO takes int8 without zero"),
    ("Conv", U8, ("int8", 5), "its weight 'w' is int8 with zero point 5"),
    ("Conv", U8, U8, "its weight 'w' is uint8, and OpenVINO takes int8"),
    ("Conv", ("int16", 0), S8, "OpenVINO drops quantizers of 16 bits, so 'x' stays float"),
    ("ConvTranspose", U8, S8, ""),
    ("ConvTranspose", SHIFTED, S8, "its input 'x' has zero point 130, and OpenVINO's integer ConvTranspose takes none"),
    ("MatMul", U8, S8, ""),
    ("MatMul", U8, ("uint8", 128), ""),
    ("MatMul", SHIFTED, S8, "its input 'x' has zero point 130, and OpenVINO's integer MatMul takes none"),
    ("MatMul", U8, U8, "its right side 'z' is uint8, and OpenVINO takes int8 without zero point there"),
    ("MatMul", U8, ("int8", 5), "its right side 'z' is int8 with zero point 5"),
]


@needs_openvino
@pytest.mark.parametrize(("op", "left", "right", "reason"), CASES)
def test_what_integer_primitives_take(op: str, left: tuple[str, int], right: tuple[str, int], reason: str) -> None:
    """Float just where there is a reason, and the reason is the one that is told."""
    model = around(op, left, right)
    one = work_by_node(model, executed_nodes(model))["n"]
    (node,) = (node for node in model.graph if node.name == "n")
    assert on_integers(one) is not bool(reason)
    assert reason in why_float(node)


@needs_openvino
def test_weights_alone_are_multiplied_by_floats() -> None:
    rows = told(graph(ROW + " { [c] y = MatMul (x, w) }"), WeightsOnly=True)
    assert rows["c"].reason == "only one side of its product is integer, and OpenVINO multiplies floats by it"


POOLED = "(float[1,6,16] x) => (float[A,B,C] y) <float[16,16] w>"
POOLED += " { [a] h = MatMul (x, w) [p] y = MaxPool <kernel_shape=[2]> (h) }"


@needs_openvino
@pytest.mark.parametrize(("least", "status"), [(None, "float"), (0, "integer")])
def test_a_layer_whose_scales_openvino_cannot_carry_on_stays_float(
    tmp_path: Path, least: float | None, status: str
) -> None:
    """It moves them behind the pool, which has fewer columns there; without a zero point one scale is all."""
    config = QuantizationConfig(target="openvino")
    feeds = [{"x": normal(1, 6, 16, seed=seed).clip(least)} for seed in range(3)]
    result = ModelQuantizer(config).quantize_model(io.to_proto(graph(POOLED)), tmp_path / "q.onnx", feeds)
    row = next(row for row in result.report.ledger if row.node == "a")
    assert row.status == status and ("MaxPoolTransformation" in row.reason) is (status == "float")


@needs_openvino
@pytest.mark.parametrize(
    ("attributes", "kernel", "reason"),
    [
        ("strides=[2,2]", 1, STRIDES),
        ("strides=[1,3], pads=[1,1,1,1]", 1, STRIDES),
        ('strides=[2,1], auto_pad="SAME_UPPER"', 1, STRIDES),
        ("strides=[1,1]", 1, ""),
        ("strides=[2,2]", 2, ""),
    ],
)
def test_strides_of_one_position(attributes: str, kernel: int, reason: str) -> None:
    """In every batch."""
    for batch in (1, 4):
        text = f"(float[{batch},16,8,8] x) => (float[A,B,C,D] y) <float[16,16,{kernel},{kernel}] w, float s = {{0.1}},"
        text += " uint8 t = {0}, int8 u = {0}> { [q] a = QuantizeLinear (x, s, t) [d] b = DequantizeLinear (a, s, t)"
        text += f" [e] f = DequantizeLinear (c, s, u) [n] y = Conv <{attributes}> (b, f) }}"
        model = graph(text, 21, c=np.full((16, 16, kernel, kernel), 5, np.int8))
        (node,) = (node for node in model.graph if node.name == "n")
        assert on_integers(work_by_node(model, executed_nodes(model))["n"]) is not bool(reason)
        assert not reason or why_float(node) == reason


@needs_openvino
def test_what_is_computed_in_float_between_quantizers_is_told() -> None:
    row = told(graph_between(TABLE["Pad"][0]))["n"]
    assert (row.status, row.reason) == ("float", BETWEEN)


# bodies


@needs_openvino
def test_what_is_inside_of_control_flow_is_not_known() -> None:
    text = """(float[2,16] x, bool c) => (float[A,B] y) <float[16,32] w> { [i] y = If (c) <
        then_branch = t () => (float[2,32] p) { [n] p = MatMul (x, w) },
        else_branch = e () => (float[2,32] q) { [o] h = MatMul (x, w) [r] q = Relu (h) }> }"""
    model = graph(text)
    assert {node.name for node in model.graph.all_nodes()} == {"i", "n", "o", "r"}
    assert work_by_node(model, executed_nodes(model)).keys() == {"i"}


# how the mapping goes, on lists that any machine has


def executed(*nodes: str, op: str = "Convolution", primitive: str = "jit_I8", precision: str = "u8") -> Executed:
    return Executed(nodes, op, primitive, precision, ("f32",))


CHAIN = IMAGE + " { [a] h = Conv (x, w) [r] g = Relu (h) [c] f = Conv (g, v) [e] y = Erf (f) }"


def kinds(*those: Executed) -> dict[str, str]:
    return {name: one.op_type for name, one in work_by_node(graph(CHAIN), those).items()}


def test_a_layer_without_a_name_is_what_its_reader_is() -> None:
    found = kinds(executed("r"), executed("c"), executed("e", op="Math"))
    assert found == {"a": "Convolution", "r": "Convolution", "c": "Convolution", "e": "Math"}


def test_a_layer_is_no_kernel_that_multiplies_nothing() -> None:
    found = kinds(executed("r", op="Eltwise"), executed("c"), executed("e", op="Math"))
    assert found == {"r": "Eltwise", "c": "Convolution", "e": "Math"}


def test_a_layer_with_several_kernels_is_the_product() -> None:
    weight, product, rest = (executed("a", op=op) for op in ("Transpose", "FullyConnected", "Eltwise"))
    found = work_by_node(graph(CHAIN), [weight, product, rest])
    assert found["a"] is product and found["r"] is product  # of what is in front of it, as nothing is known behind
    assert work_by_node(graph(CHAIN), [executed("e", op=op) for op in ("MVN", "Eltwise")])["e"].op_type == "Eltwise"


def test_of_two_readers_the_one_on_floats_counts() -> None:
    text = IMAGE + " { [a] h = Conv (x, w) [t] g = Transpose (h) [e] f = Erf (g) [s] d = Sqrt (g) [z] y = Add (f, d) }"
    slow = executed("s", op="Math", primitive="jit_f32", precision="f32")
    assert work_by_node(graph(text), [executed("a"), executed("e"), slow])["t"] is slow


@pytest.mark.parametrize(
    ("primitive", "precision", "expected"),
    [("brgconv_avx2_I8", "u8", True), ("brgemm_i8", "i8", True), ("brgemm_f32", "i8", False), ("ref_I8", "i32", False)],
)
def test_weights_that_become_floats_are_no_integers(primitive: str, precision: str, expected: bool) -> None:
    assert on_integers(executed("a", primitive=primitive, precision=precision)) is expected


def test_labels_are_read_wherever_they_stand() -> None:
    labels = labelled(graph(CHAIN))
    text = "@2.0@_original,@0@/WithoutBiases,Multiply_17,@2@/fq_input_1,x_abcd_acdb_@1@"
    assert labels.named_in(text) == ("a", "r", "c")
    assert labels.named_in("Multiply_17,x@y,@") == ()
    assert [node.name for node in labels.model.graph] == ["@0@", "@1@", "@2@", "@3@"]
