"""Conversion to float16 and to bfloat16: types, numbers, what stays float32 and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_text import parse_model
from quantized_models import executed_kernels
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, QuantizationConfig, get_default_config
from quark_onnx.clock import Clock, unseen
from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.plan import Plan
from quark_onnx.decided import Decided
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.graph.element_types import rounded
from quark_onnx.graph.to_bfloat16 import to_bfloat16
from quark_onnx.graph.to_float16 import to_float16
from quark_onnx.opened_job import open_job
from quark_onnx.pipeline import finish
from quark_onnx.result import Result

KINDS = ("float16", "bfloat16")
BF = io.ir.DataType.BFLOAT16.numpy()
KINDS_BY_NUMBER = {1: "float", 7: "int64", 10: "float16"}
MLP = "g (float[2,8] x) => (float[2,4] y) { a = MatMul (x, w) e = Tanh (a) y = MatMul (e, v) }"


def config(kind: str, **fields: Any) -> QuantizationConfig:
    return QuantizationConfig(activation_type=kind, weight_type=kind, include_cle=False, **fields)


def convert(proto: onnx.ModelProto, kind: str, data: Any = None, **fields: Any) -> Result:
    before = proto.SerializeToString(deterministic=True)
    result = ModelQuantizer(config(kind, **fields)).quantize_model(proto, None, data)
    assert proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result.model, full_check=True)
    return result


def mlp() -> onnx.ModelProto:
    return text_model(MLP, w=normal(8, 16), v=normal(16, 4))


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: io.ir.from_proto(tensor).numpy() for tensor in proto.graph.initializer}


def types(proto: onnx.ModelProto) -> dict[str, str]:
    """Element type of every value, as onnx infers them."""
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {v.name: onnx.TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower() for v in values}


def ops(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def run(proto: onnx.ModelProto, *feeds: np.ndarray, optimized: bool) -> list[np.ndarray]:
    runner = Runner(io.load(proto), optimized=optimized, threads=1)
    return runner(dict(zip(runner.inputs, feeds, strict=True)))


def bf16(array: np.ndarray) -> np.ndarray:
    return array.astype(BF).astype(np.float32)


# float16 -----------------------------------------------------------------------------------------


def test_float16_inside_and_float32_outside() -> None:
    result = convert(mlp(), "float16")
    found = types(result.model)
    assert [found[name] for name in ("x", "a", "e", "y")] == ["float", "float16", "float16", "float"]
    assert {name: array.dtype for name, array in weights(result.model).items()} == dict.fromkeys("wv", np.float16)
    assert ops(result.model) == {"Cast": 2, "MatMul": 2, "Tanh": 1}
    assert result.report.bytes["quantized"] * 2 == result.report.bytes["float"]
    assert set(result.plan.nodes) == {"MatMul_a", "Tanh_e", "MatMul_y"}
    assert not result.plan.sites
    assert {row.status for row in result.report.ledger} == {"float"}
    assert set(result.report.float_nodes.values()) == {"computed in float16"}
    assert result.report.warnings == ()


def test_float16_numbers_are_those_of_half_arithmetic() -> None:
    proto = text_model(
        "g (float[64] x) => (float[64] y) { a = Mul (x, w) b = Add (a, w) y = Div (b, x) }", w=normal(64)
    )
    converted = convert(proto, "float16").model
    x, h = normal(64, seed=3), np.float16
    w16, x16 = normal(64).astype(h), x.astype(h)
    want = (x16 * w16 + w16) / x16
    (got,) = onnx.reference.ReferenceEvaluator(converted).run(None, {"x": x})
    np.testing.assert_array_equal(got, want.astype(np.float32))
    for optimized in (False, True):  # onnxruntime's CPU provider computes in float32 what it has no float16 kernel for
        (ours,) = run(converted, x, optimized=optimized)
        np.testing.assert_allclose(ours, want.astype(np.float32), rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize(
    ("nodes", "half", "single"),
    [
        ('y = Resize <mode = "linear"> (x, "", sizes)', {"x_half"}, {"sizes"}),
        ("r = Range (zero, n, one) e = Exp (r) y = Add (x, e)", {"e"}, {"r"}),
        ("l, m = LayerNormalization (x, gamma) z = Exp (m) y = Add (l, z)", {"l", "m_half", "z"}, {"m"}),
        ("r = RandomNormal <shape = [1, 1, 2, 2]> () y = Add (x, r)", {"r_half"}, {"r"}),
        ("i = Cast <to = 7> (x) f = Cast <to = 1> (i) y = Exp (f)", {"f"}, set()),
        ("k = ConstantOfShape (shape) y = Add (x, k)", {"k"}, set()),
        ("d = Cast <to = 11> (x) e = Exp (d) y = Cast <to = 1> (e)", set(), set()),
    ],
)
def test_schemas_decide_what_stays_float32(nodes: str, half: set[str], single: set[str]) -> None:
    """A fixed type, a type variable without float16, numbers made of nothing."""
    arrays = {"sizes": np.ones(4, np.float32), "zero": np.float32(0), "n": np.float32(2), "one": np.float32(1)}
    arrays |= {"shape": np.array([1, 1, 2, 2]), "gamma": np.ones(2, np.float32)}
    used = {name: array for name, array in arrays.items() if f" {name}" in nodes.replace("(", "( ")}
    proto = text_model(f"g (float[1,1,2,2] x) => (float[1,1,2,2] y) {{ {nodes} }}", **used)
    converted = io.to_proto(to_float16(io.load(proto)))
    onnx.checker.check_model(converted, full_check=True)
    found = types(converted)
    found |= {tensor.name: KINDS_BY_NUMBER[tensor.data_type] for tensor in converted.graph.initializer}
    assert {name for name in half if found[name] != "float16"} == set()
    assert {name for name in single if found[name] != "float"} == set()
    if "Random" not in nodes:
        (want,) = run(proto, normal(1, 1, 2, 2), optimized=False)
        for optimized in (False, True):
            (got,) = run(converted, normal(1, 1, 2, 2), optimized=optimized)
            np.testing.assert_allclose(got, want, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_computes_shapes_stays_float32(kind: str) -> None:
    """2049 elements: neither type has that number."""
    text = """g (float[N] x) => (float[M] y) {
        s = Shape (x) f = Cast <to = 1> (s) h = Max (f, one) i = Cast <to = 7> (h) e = Exp (x) y = Reshape (e, i) }"""
    result = convert(text_model(text, one=np.float32(1)), kind)
    assert set(result.plan.nodes) == {"Exp_e", "Reshape_y"}
    assert result.report.float_nodes["Max_h"] == "computes shapes or indices, not data"
    assert run(result.model, normal(2049), optimized=True)[0].shape == (2049,)


def test_foreign_operators_stay_float32_between_casts() -> None:
    head = '<ir_version: 8, opset_import: ["": 17, "other": 1]> g (float[2] x) => (float[2] y)'
    text = f"{head} {{ a = Exp (x) b = other.Foo (a) y = Exp (b) }}"
    model = to_float16(io.load(parse_model(text)))
    proto = io.to_proto(model)
    assert [node.op_type for node in proto.graph.node] == ["Cast", "Exp", "Cast", "Foo", "Exp"]  # b's type is unknown


BODIES = """g (bool c, int64 n, float[2] x) => (float[2] y, float[2] z) {
    y = If (c) <then_branch = t () => (float[2] o) { k = Constant <value = float[2] {3, 0.1}> () o = Mul (k, x) },
                else_branch = e () => (float[2] p) { r = Range (zero, two, one) p = Add (r, x) }>
    z = Loop (n, c, x) <body = b (int64 i, bool k1, float[2] v) => (bool k2, float[2] w2) {
        k2 = Identity (k1) w2 = Add (v, x) }> }"""


@pytest.mark.parametrize("excluded", [(), ("If_y",), ("If_y", "Loop_z")])
def test_bodies_are_converted_with_their_node(excluded: tuple[str, ...]) -> None:
    constants = {"zero": np.float32(0), "two": np.float32(2), "one": np.float32(1)}
    proto = text_model(BODIES, **constants)
    converted = convert(proto, "float16", nodes_to_exclude=excluded).model
    branches = {a.g.name: a.g for node in converted.graph.node for a in node.attribute if a.HasField("g")}
    kinds = {name: body.output[-1].type.tensor_type.elem_type for name, body in branches.items()}
    assert kinds == {"t": 1, "e": 1, "b": 1} | dict.fromkeys("te" if "If_y" not in excluded else "", 10) | (
        {"b": 10} if "Loop_z" not in excluded else {}
    )
    for chosen in (True, False):
        feeds = np.array(chosen), np.array(3), np.array([1.25, -2.5], np.float32)
        want = run(proto, *feeds, optimized=False)
        for optimized in (False, True):
            for a, b in zip(run(converted, *feeds, optimized=optimized), want, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-3)


def test_constants_beyond_float16_are_clamped_and_named() -> None:
    text = "g (float[4] x) => (float[4] y) { a = Add (x, mask) b = Add (a, inf) c = Mul (b, tiny) y = Add (c, plain) }"
    values = {
        "mask": np.array([0, -3.4e38, 1e5, 7], np.float32),
        "inf": np.array([0, -np.inf, 0, 0], np.float32),
        "tiny": np.array([1e-9, 0, 1, 6e-8], np.float32),
        "plain": np.array([0.1, 65504, 0, 1], np.float32),
    }
    result = convert(text_model(text, **values), "float16")
    stored = weights(result.model)
    np.testing.assert_array_equal(stored["mask"], np.array([0, -65504, 65504, 7], np.float16))
    np.testing.assert_array_equal(stored["inf"], values["inf"])
    np.testing.assert_array_equal(stored["plain"], values["plain"].astype(np.float16))
    assert result.report.remarks == {
        "mask": "2 of 4 values are beyond ±65504 and become that",
        "tiny": "1 of 4 values are too small for float16 and become 0",
    }
    assert convert(text_model(text, **values), "bfloat16").report.remarks == {
        "mask": "1 of 4 values are beyond ±3.38953e+38 and become that"
    }


@pytest.mark.parametrize(("factor", "spared"), [(2.0, False), (1e4, True)])
def test_activations_that_overflow_on_the_data_stay_float32(factor: float, spared: bool) -> None:
    text = "g (float[8] x) => (float[8] y) { a = Mul (x, k) b = Mul (a, a) c = Sqrt (b) y = Div (c, k) }"
    data = [{"x": normal(8)}]
    result = convert(text_model(text, k=np.float32(factor)), "float16", data)
    reasons = {name: reason for name, reason in result.report.float_nodes.items() if "float16" not in reason[:19]}
    assert set(reasons) == ({"Mul_b", "Sqrt_c"} if spared else set())
    assert all("'b' reaches" in reason for reason in reasons.values())
    assert set(result.plan.nodes) == {"Mul_a", "Mul_b", "Sqrt_c", "Div_y"} - set(reasons)
    (got,) = onnx.reference.ReferenceEvaluator(result.model).run(None, data[0])
    np.testing.assert_allclose(got, abs(data[0]["x"]), rtol=1e-2)


def test_a_mask_does_not_count_as_overflow() -> None:
    text = """g (float[1,4] x, float[1,4] m) => (float[1,4] y) {
        i = Sub (one, m) k = Mul (i, low) a = Add (x, k) y = Softmax (a) }"""
    proto = text_model(text, one=np.float32(1), low=np.float32(-3.4e38))
    data = [{"x": normal(1, 4), "m": np.array([[1, 1, 1, 0]], np.float32)}]
    result = convert(proto, "float16", data)
    assert len(result.plan.nodes) == 4
    assert result.report.sqnr["y"] > 40


# bfloat16 ----------------------------------------------------------------------------------------


def test_bfloat16_numbers_are_exact() -> None:
    """Element by element, so that there is nothing to be summed in another order."""
    proto = text_model(
        "g (float[64] x) => (float[64] y) { a = Mul (x, w) b = Add (a, w) y = Div (b, x) }", w=normal(64)
    )
    result = convert(proto, "bfloat16")
    assert weights(result.model)["w_bfloat16"].dtype == BF
    x, w = normal(64, seed=3), bf16(normal(64))
    want = bf16(bf16(bf16(bf16(x) * w) + w) / bf16(x))
    for optimized in (False, True):
        np.testing.assert_array_equal(run(result.model, x, optimized=optimized)[0], want)
    assert types(result.model)["y"] == "float"


def test_bfloat16_products_are_summed_in_float32() -> None:
    result = convert(mlp(), "bfloat16")
    assert result.report.bytes["quantized"] * 2 == result.report.bytes["float"]
    x = normal(2, 8, seed=5)
    hidden = bf16(np.tanh(bf16(bf16(x) @ bf16(normal(8, 16)))))
    want = bf16(hidden @ bf16(normal(16, 4)))
    for optimized in (False, True):
        np.testing.assert_allclose(run(result.model, x, optimized=optimized)[0], want, rtol=2**-7, atol=2**-8)


def test_onnxruntime_keeps_the_casts() -> None:
    result = convert(mlp(), "bfloat16")
    assert executed_kernels(io.load(result.model))["Cast"] == 2 * 4  # x, a, e, y; those of weights are folded


@pytest.mark.parametrize(
    ("nodes", "pairs"),
    [
        ("y = Exp (x)", 2),
        ("y = Relu (x)", 1),  # numbers of bfloat16 stay such
        ("t = Transpose (x) r = Relu (t) y = Exp (r)", 2),
        ("i = Cast <to = 7> (x) y = Cast <to = 1> (i)", 2),
        ("s = Shape (x) i = Cast <to = 1> (s) m = Mul (i, i) j = Cast <to = 7> (m) y = Expand (x, j)", 1),
    ],
)
def test_what_is_rounded(nodes: str, pairs: int) -> None:
    proto = text_model(f"g (float[N] x) => (float[M] y) {{ {nodes} }}")
    converted = convert(proto, "bfloat16", optimize_model=False).model
    rounds = [n for n in converted.graph.node if n.op_type == "Cast" and n.attribute[0].i == onnx.TensorProto.BFLOAT16]
    assert len(rounds) == pairs


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8))
def test_rounding_is_half_to_even_and_finite_stays_finite(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    for name in KINDS:
        kind = io.ir.DataType[name.upper()]
        low = rounded(array, kind).astype(np.float32)
        assert np.isfinite(low[np.isfinite(array)]).all()
        np.testing.assert_array_equal(np.isinf(low), np.isinf(array))
        inside = np.abs(array) <= float(kind.max)
        np.testing.assert_array_equal(low[inside], array[inside].astype(kind.numpy()).astype(np.float32))
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    np.testing.assert_array_equal(rounded(ties, io.ir.DataType.BFLOAT16).astype(np.float32), [1, 1 + 2**-6])


# both --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_excluded_nodes_stay_float32(kind: str) -> None:
    result = convert(mlp(), kind, nodes_to_exclude=["MatMul_y"])
    stored = weights(result.model)
    np.testing.assert_array_equal(stored["v"], normal(16, 4))
    assert "w" not in stored or stored["w"].dtype == np.float16
    assert "nodes_to_exclude" in result.report.float_nodes["MatMul_y"]
    assert set(result.plan.nodes) == {"MatMul_a", "Tanh_e"}
    x = normal(2, 8, seed=5)
    (y,) = onnx.reference.ReferenceEvaluator(result.model).run(None, {"x": x})
    low = np.float16 if kind == "float16" else BF
    assert not np.array_equal(y, y.astype(low).astype(np.float32))  # not rounded
    whole = convert(mlp(), kind)
    (z,) = onnx.reference.ReferenceEvaluator(whole.model).run(None, {"x": x})
    np.testing.assert_array_equal(z, z.astype(low).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_only_some_operators(kind: str) -> None:
    result = convert(mlp(), kind, op_types_to_quantize=["MatMul"])
    assert set(result.plan.nodes) == {"MatMul_a", "MatMul_y"}
    with pytest.raises(ConfigError, match="MatMull"):
        convert(mlp(), kind, nodes_to_exclude=["MatMull_y"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_applied_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    data = [{"x": normal(2, 8, seed=i)} for i in range(3)]
    result = ModelQuantizer(config(kind)).quantize_model(mlp(), tmp_path / "m.onnx", data)
    assert result.report.samples == 3
    assert result.report.sqnr["y"] > 30
    plan = Plan.load(result.plan.save(tmp_path / "plan"))
    again = finish(Decided(open_job(mlp(), config(kind)), plan), None, Clock(unseen))
    assert again.model == result.model == onnx.load(str(tmp_path / "m.onnx"))


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_presets_need_no_data(name: str) -> None:
    chosen = get_default_config(name)
    result = ModelQuantizer(chosen).quantize_model(mlp())
    assert result.report.samples == 0
    assert result.report.sqnr == {}
    evened = ModelQuantizer(replace(chosen, include_cle=True)).quantize_model(mlp(), None, [{"x": normal(2, 8)}])
    assert not evened.plan.factors
    assert evened.model == result.model
    with pytest.raises(DataError, match="rank"):
        ModelQuantizer(chosen).quantize_model(mlp(), None, [{"x": normal(8, 3, 3)}])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_convert_is_said(kind: str) -> None:
    result = convert(text_model("g (int64[2] x) => (int64[2] y) { y = Add (x, x) }"), kind)
    assert "nothing was" in result.report.warnings[0]
    assert result.report.float_nodes == {"Add_y": "holds no float32 values"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("full", [False, True])
def test_a_float16_model_keeps_its_interface(kind: str, full: bool) -> None:
    proto = io.to_proto(to_float16(io.load(mlp()), interface=("x", "y")))
    result = convert(proto, kind, [{"x": normal(2, 8).astype(np.float16)}], convert_fp16_to_fp32=full)
    found = types(result.model)
    assert found["x"] == found["y"] == ("float" if full else "float16")
    assert result.report.sqnr["y"] > 30


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_are_inputs_or_constants(kind: str) -> None:
    text = "g (float[2] x) => (float[2] y, float[2] z, float[2] e) { y = Identity (x) z = Identity (w) e = Exp (w) }"
    result = convert(text_model(text, w=normal(2)), kind, optimize_model=False)
    x = np.array([1.5, 2], np.float32)
    y, z, e = run(result.model, x, optimized=False)
    assert {array.dtype for array in (y, z, e)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(y, x)
    np.testing.assert_allclose(e, np.exp(z), rtol=2**-7)


def test_names_of_nodes_to_keep_reach_the_graph() -> None:
    model = io.load(mlp())
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"
    kept = io.to_proto(to_bfloat16(model, keep=("n0", "n1", "n2")))
    assert [node.op_type for node in kept.graph.node] == ["MatMul", "Tanh", "MatMul"]
    narrow = io.to_proto(to_float16(model, keep=("n0", "n1", "n2")))
    assert [node.op_type for node in narrow.graph.node] == ["MatMul", "Tanh", "MatMul"]


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(["n0", "n1", "n2", "n3", "n4"])), st.sampled_from(KINDS))
def test_any_set_of_nodes_can_stay(keep: set[str], kind: str) -> None:
    text = """g (float[4] x) => (float[4] y, float[4] b) {
        a = Mul (x, w) b = Tanh (a) c = Add (a, b) d = Mul (c, w) y = Add (d, x) }"""
    proto = text_model(text, w=normal(4))
    for i, node in enumerate(proto.graph.node):
        node.name = f"n{i}"
    make = to_float16 if kind == "float16" else to_bfloat16
    converted = io.to_proto(make(io.load(proto), keep=keep))
    onnx.checker.check_model(converted, full_check=True)
    x = normal(4, seed=2)
    for got, want in zip(run(converted, x, optimized=True), run(proto, x, optimized=False), strict=True):
        np.testing.assert_allclose(got, want, rtol=0.1, atol=0.03)
        if keep == {"n0", "n1", "n2", "n3", "n4"}:
            np.testing.assert_array_equal(got, want)
