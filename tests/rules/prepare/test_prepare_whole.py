"""prepare as a whole: names, order, graph outputs, control flow, and the three real models."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import assert_same, batchnorm, normal, ops, prepared, run, text_model, weights

from quark_onnx.graph import io
from quark_onnx.graph.edit import fresh_name
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.stages.prepare import Prepared, prepare

ASSETS = Path(__file__).parents[3].parent / "shared/assets"


def asset(name: str) -> Path:
    """Path of a real model, or the test is skipped."""
    path = ASSETS / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is absent: the real models are not part of the repository")
    return path


def test_unnamed_and_equal_names() -> None:
    """The first holder keeps a name; the others get the operator's and the output's."""
    text = "g (float[2] x) => (float[2] y) { [n] a = Relu (x) b = Neg (a) [n] c = Abs (b) y = Neg (c) }"
    names = [node.name for node in prepared(text_model(text), optimize=False).model.graph]
    assert names == ["n", "Neg_b", "Abs_c", "Neg_y"]


def test_a_new_name_does_not_take_an_old_one() -> None:
    text = "g (float[2] x) => (float[2] y) { a = Relu (x) [Relu_a] y = Neg (a) }"
    names = [node.name for node in prepared(text_model(text), optimize=False).model.graph]
    assert names == ["Relu_a_1", "Relu_a"]


def test_a_copy_has_names_of_its_own() -> None:
    model = io.load(text_model("g (float[2] x) => (float[2] y) { y = Relu (x) }"))
    assert fresh_name(model.graph, "y") == "y_1"
    twin = io.copy(model)
    assert [fresh_name(twin.graph, "y"), fresh_name(twin.graph, "y")] == ["y_1", "y_2"]
    assert fresh_name(model.graph, "y") == "y_2"


def test_optional_inputs_that_are_missing() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) { a = Clip (x, , hi) b = Clip (a, lo) c = Clip (b, , ) y = Relu (c) }"
    proto = text_model(text, hi=np.float32(0.5), lo=np.float32(-0.5))
    result = prepared(proto)
    assert ops(result) == {"Clip": 3, "Relu": 1}
    assert_same(proto, result, {"x": normal(2, 4)}, terms=0)


def test_loop_reads_folded_layers() -> None:
    text = """g (float[1,4,6] x, int64 m) => (float[1,4,6] y) {
        h = Conv (x, w) n = BatchNormalization (h, gamma, beta, mean, var)
        y = Loop (m, , n) <body = b (int64 i, bool c, float[1,4,6] s) => (bool d, float[1,4,6] t) {
            d = Identity (c) r = Conv (s, w) k = Constant <value_float = 0.5> () p = Mul (r, k) t = Add (p, n) }> }"""
    proto = text_model(text, w=normal(4, 4, 1), **batchnorm(4))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1, "Loop": 1}
    assert_same(proto, result, {"x": normal(1, 4, 6), "m": np.array(2)}, terms=100)


def test_every_output_in_the_middle_keeps_its_name() -> None:
    text = """g (float[2,4] x) => (float[2,4] a, float[2,4] b, float[2,4] c, float[2,4] d) {
        h = MatMul (x, w) a = Add (h, k) i = Identity (a) b = Mul (i, k)
        e = Dropout (b) c = Relu (e) d = Identity (c) }"""
    proto = text_model(text, w=normal(4, 4), k=normal(4))
    result = prepared(proto)
    assert ops(result) == {"Gemm": 1, "Mul": 1, "Relu": 1, "Identity": 1}
    assert_same(proto, result, {"x": normal(2, 4)}, terms=6)


def test_weight_names_survive_where_the_old_weight_is_gone() -> None:
    text = "g (float[1,4,6] x) => (float[1,4,L] y) { h = Conv (x, w, b) y = Mul (h, k) }"
    assert set(weights(prepared(text_model(text, w=normal(4, 4, 1), b=normal(4), k=np.float32(2))))) == {"w", "b"}


def test_a_folded_weight_that_is_a_graph_output_too() -> None:
    text = "g (float[1,4,6] x) => (float[1,4,L] y, float[4,4,1] w) { h = Conv (x, w) y = Mul (h, k) }"
    proto = text_model(text, w=normal(4, 4, 1), k=np.float32(2))
    result = prepared(proto)
    assert ops(result) == {"Conv": 1}
    assert_same(proto, result, {"x": normal(1, 4, 6)}, terms=5)


def test_types_of_sequences_are_kept() -> None:
    """A sequence must not be written down as a tensor: onnxruntime refuses such a model."""
    text = """g (float[2] x, float[2] z) => (float[2] y) {
        s = SequenceConstruct (x, z) t = SequenceInsert (s, x) y = SequenceAt (t, i) }"""
    proto = text_model(text, i=np.array(1))
    result = prepared(proto)
    assert_same(proto, result, {"x": normal(2), "z": normal(2, seed=1)}, terms=0)


def test_the_model_may_be_prepared_in_memory_or_from_a_file(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,6] x) => (float[1,4,L] y) { h = Conv (x, w) y = BatchNormalization (h, gamma, beta, mean, var) }"
    )
    proto = text_model(text, w=normal(4, 4, 3), **batchnorm(4))
    expected = io.fingerprint(prepared(proto, opset=21).model)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert io.fingerprint(prepare(io.load(tmp_path / "m.onnx"), opset=21).model) == expected


LINKS = {
    "conv": "Conv ({0}, w)",
    "biased": "Conv ({0}, w, b)",
    "grouped": "Conv <group = 2> ({0}, v)",
    "transposed": "ConvTranspose <group = 2> ({0}, v, b)",
    "padded": "Conv <pads = [1, 1]> ({0}, u)",
    "norm": "BatchNormalization ({0}, gamma, beta, mean, var)",
    "mul": "Mul ({0}, k)",
    "add": "Add (k, {0})",
    "sub": "Sub (s, {0})",
    "identity": "Identity ({0})",
    "dropout": "Dropout ({0})",
    "left": "MatMul (m, {0})",
    "right": "MatMul ({0}, n)",
    "relu": "Relu ({0})",
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(LINKS)), st.booleans()), min_size=1, max_size=7))
def test_any_chain(links: list[tuple[str, bool]]) -> None:
    """Whatever follows whatever, and whichever values are graph outputs: the outputs stay what they were."""
    nodes = [f"t{i + 1} = {LINKS[name].format(f't{i}')}" for i, (name, _) in enumerate(links)]
    outputs = [f"float[1,4,6] t{i + 1}" for i, (_, shown) in enumerate(links) if shown or i == len(links) - 1]
    constants = {"w": normal(4, 4, 1), "v": normal(4, 2, 1), "u": normal(4, 4, 3), "b": normal(4), "s": np.float32(0.5)}
    constants |= {"k": normal(4, 1), "m": normal(4, 4, seed=1), "n": normal(6, 6), **batchnorm(4)}
    proto = text_model(f"g (float[1,4,6] t0) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}", **constants)
    result = prepared(proto)
    assert len(result.model.graph) <= len(links)
    assert_same(proto, result, {"t0": normal(1, 4, 6)}, terms=50 * len(links))


SHAPES = {1: (4,), 2: (4, 4), 3: (2, 4, 4)}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["Mul", "Add", "Sub", "Div"]),
    st.sampled_from([(), (1,), (4,), (4, 1), (1, 4), (2, 1), (2, 4, 4), (2, 1, 4), (1, 4, 1)]),
)
def test_any_matmul(data: int, weight: int, left: bool, op: str, shape: tuple[int, ...]) -> None:
    """Vectors, matrices and batches on both sides, and constants of any shape behind them."""
    sides = "w, x" if left else "x, w"
    dims = ",".join(map(str, SHAPES[data]))
    w, c = normal(*SHAPES[weight]), np.asarray(normal(*shape, seed=1)) + np.float32(3)
    operands = (w, np.zeros(SHAPES[data])) if left else (np.zeros(SHAPES[data]), w)
    try:
        rank = np.broadcast_shapes(np.matmul(*operands).shape, shape)
    except ValueError:
        return
    if not rank:  # a scalar: the text format cannot write its shape
        return
    output = ",".join("ABCD"[: len(rank)])
    proto = text_model(
        f"g (float[{dims}] x) => (float[{output}] y) {{ h = MatMul ({sides}) y = {op} (h, c) }}", w=w, c=c
    )
    assert_same(proto, prepared(proto), {"x": normal(*SHAPES[data], seed=2)}, terms=16)


def floor(layers: int, terms: int) -> float:
    """dB that must remain: a sum of n products is off by about √n·2⁻²⁴ of its size, in every layer of both models."""
    return 20 * math.log10(2**24 / math.sqrt(2 * layers * terms))


def sqnr(before: Path, after: Prepared, feeds: dict[str, np.ndarray]) -> float:
    ratio = Sqnr()
    for want, got in zip(run(onnx.load(before), feeds), run(after.model, feeds), strict=True):
        ratio.add(want, got)
    return ratio.db


@pytest.mark.assets
@pytest.mark.parametrize("opset", [13, 21])
def test_mobilenet(opset: int) -> None:
    path = asset("mobilenet_v1_025_imagenet")
    result = prepare(io.load(path), opset=opset)
    assert ops(result) == {"Conv": 28, "Clip": 27, "GlobalAveragePool": 1, "Flatten": 1}
    before = {node.name for node in onnx.load(path).graph.node}
    assert {node.name for node in result.model.graph} <= before
    assert sqnr(path, result, {"input": normal(2, 3, 224, 224)}) > floor(28, 1024) > 90


@pytest.mark.assets
@pytest.mark.parametrize("opset", [13, 21])
def test_resnet20(opset: int) -> None:
    path = asset("resnet20_cifar10")
    result = prepare(io.load(path), opset=opset)
    left = ops(result)
    assert (left["Conv"], left["Gemm"], left["BatchNormalization"], left["Constant"]) == (19, 1, 0, 0)
    constants = weights(result)
    pads = [constants[node.inputs[1].name].tolist() for node in result.model.graph if node.op_type == "Pad"]
    assert pads == [[0, 8, 0, 0, 0, 8, 0, 0], [0, 16, 0, 0, 0, 16, 0, 0]]
    assert left["ConstantOfShape"] + left["Cast"] + left["Transpose"] == 0
    assert sqnr(path, result, {"input": normal(2, 3, 32, 32)}) > floor(20, 576) > 90


@pytest.mark.assets
@pytest.mark.parametrize("opset", [13, 21])
def test_minilm(opset: int) -> None:
    """No layer is folded, so nothing is rounded in another way; at opset 21 LayerNormalization is still the same."""
    path = asset("minilm_l6_stsb")
    result = prepare(io.load(path), opset=opset)
    left = ops(result)
    assert (left["MatMul"], left["LayerNormalization"], left["Constant"]) == (48, 13, 0)
    feeds = {"input_ids": np.arange(12).reshape(2, 6), "attention_mask": np.ones((2, 6), np.int64)}
    assert sqnr(path, result, feeds) == np.inf


@pytest.mark.assets
@pytest.mark.parametrize("name", ["mobilenet_v1_025_imagenet", "resnet20_cifar10", "minilm_l6_stsb"])
def test_same_model_same_result(name: str) -> None:
    model = io.load(asset(name))
    before = io.fingerprint(model)
    first, second = (io.fingerprint(prepare(model, opset=13).model) for _ in range(2))
    assert first == second
    assert io.fingerprint(model) == before
