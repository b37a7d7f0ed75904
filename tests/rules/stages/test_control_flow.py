"""Layers inside If branches and Loop and Scan bodies: quantized where their data are seen, and left alone elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from text_models import normal, text_model

from quark_onnx import Config, ConfigError, ModelQuantizer, QuantizationConfig, Result, get_default_config
from quark_onnx.core.errors import PlanError
from quark_onnx.core.plan import Plan
from quark_onnx.core.plan_diff import diff
from quark_onnx.encodings import from_plan
from quark_onnx.engine.calibration_data import Feed

N = 64
WEIGHTS = {name: normal(N, N, seed=seed) / np.float32(8) for seed, name in enumerate("wvuo")}
BASE = Config().global_quant_config

# Both branches call a tensor k, and have a layer in common with the graph around them.
IF = """g (float[B,64] x, bool c) => (float[B,64] y) {
    t = MatMul (x, w)
    r = Tanh (t)
    z = If (c) <then_branch = a () => (float[B,64] p) { h = MatMul (r, u)  k = Relu (h)  p = MatMul (k, w) },
                else_branch = b () => (float[B,64] q) { e = MatMul (x, v)  k = Relu (e)  q = MatMul (k, w) }>
    y = MatMul (z, o)
}"""

LOOP = """g (float[B,64] x, int64 n) => (float[B,64] y, float[T,B,64] ys) {
    go = Constant <value = bool {1}> ()
    y, ys = Loop (n, go, x) <body = step (int64 i, bool on, float[B,64] s)
        => (bool on, float[B,64] next, float[B,64] out) {
        h = MatMul (s, w)  k = Relu (h)  m = MatMul (k, v)  a = Add (m, x)  next = Tanh (a)  out = MatMul (next, u) }>
}"""

SCAN = """g (float[T,B,64] x, float[B,64] h0) => (float[B,64] y, float[T,B,64] ys) {
    y, ys = Scan <num_scan_inputs = 1, body = step (float[B,64] s, float[B,64] now)
        => (float[B,64] next, float[B,64] out) {
        h = MatMul (now, w)  k = MatMul (s, v)  a = Add (h, k)  next = Tanh (a)  out = MatMul (next, u) }> (h0, x)
}"""

NESTED = """g (float[B,64] x, int64 n, float limit) => (float[B,64] y) {
    go = Constant <value = bool {1}> ()
    t = MatMul (x, w)
    y = Loop (n, go, t) <body = step (int64 i, bool on, float[B,64] s) => (bool on, float[B,64] next) {
        top = ReduceMax <keepdims = 0> (s)
        c = Greater (top, limit)
        h = MatMul (s, u)
        m = If (c) <then_branch = a () => (float[B,64] p) { f = MatMul (h, v)  p = Add (f, t) },
                    else_branch = b () => (float[B,64] q) { e = MatMul (h, w)  q = Relu (e) }>
        next = Tanh (m) }>
}"""


def model(text: str) -> onnx.ModelProto:
    made = text_model(text)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(WEIGHTS[n], n) for n in WEIGHTS if f", {n})" in text)
    return made


def data(count: int = 6, **more: object) -> list[Feed]:
    given = {name: np.asarray(value) for name, value in more.items()}
    return [{"x": normal(4, N, seed=seed)} | given for seed in range(count)]


def quantize(text: str, feeds: list[Feed] | None, config: QuantizationConfig = BASE) -> Result:
    """Quantize; what holds for every model: the caller's is not touched, the file is valid and does not grow."""
    given = model(text)
    before = given.SerializeToString(deterministic=True)
    result = ModelQuantizer(config).quantize_model(given, None, feeds)
    onnx.checker.check_model(result.model, full_check=True)
    assert given.SerializeToString(deterministic=True) == before
    assert result.model.ByteSize() <= given.ByteSize() + 500
    return result


def layers(result: Result) -> dict[str, str]:
    """Layer → whether it runs on integers."""
    return {row.node.split("_")[1]: row.status for row in result.report.ledger if row.op_type in ("MatMul", "Gemm")}


def option(**options: object) -> QuantizationConfig:
    return replace(BASE, extra_options={**BASE.extra_options, **options})


# What is seen is quantized


def test_both_branches() -> None:
    result = quantize(IF, data(c=True) + data(c=False))
    assert set(layers(result).values()) == {"integer"}
    assert len(layers(result)) == 6
    assert result.report.sqnr["y"] > 20
    assert all(row.certificate for row in result.report.ledger if row.status == "integer")


def test_the_weights_of_all_are_stored_once() -> None:
    """Four weights, one of them read in three graphs, and little more than a byte for each of their numbers."""
    result = quantize(IF, data(c=True) + data(c=False))
    assert result.report.bytes["quantized"] < 1.5 * 4 * N * N


@pytest.mark.parametrize("trips", [1, 5])
def test_loop(trips: int) -> None:
    result = quantize(LOOP, data(n=trips))
    assert layers(result) == dict.fromkeys(("h", "m", "out"), "integer")
    assert min(result.report.sqnr.values()) > 20


def test_scan_with_a_state() -> None:
    feeds = [{"x": normal(3 + i % 2, 2, N, seed=i), "h0": np.zeros((2, N), np.float32)} for i in range(6)]
    result = quantize(SCAN, feeds)
    assert set(layers(result).values()) == {"integer"}
    assert min(result.report.sqnr.values()) > 20


def test_an_if_inside_a_loop() -> None:
    result = quantize(NESTED, data(n=4, limit=np.float32(0)) + data(n=4, limit=np.float32(99)))
    assert layers(result) == dict.fromkeys(layers(result), "integer")
    assert len(layers(result)) == 4
    assert result.report.sqnr["y"] > 15


@pytest.mark.parametrize("preset", ["XINT8", "A16W8", "UINT8_DYNAMIC_QUANT"])
def test_presets(preset: str) -> None:
    result = quantize(IF, data(c=True) + data(c=False), get_default_config(preset))
    assert all(part.nodes for part in result.plan.parts())
    assert result.report.sqnr["y"] > 15


def test_weights_only_need_no_data() -> None:
    result = quantize(IF, None, option(WeightsOnly=True))
    assert all(part.nodes for part in result.plan.parts())


# What is not seen stays float, and its reason names the body


def test_a_branch_that_no_sample_takes() -> None:
    result = quantize(IF, data(c=True))
    found = layers(result)
    assert [found[name] for name in "thpy"] == ["integer"] * 4
    assert [found[name] for name in "eq"] == ["float"] * 2
    assert result.report.float_nodes["MatMul_q"].startswith("inside the else branch of If 'If_z': it never runs")
    assert "InlineIf={'If_z': 'then'}" in result.plan.remarks["If_z"]


def test_a_branch_that_few_samples_take() -> None:
    remark = quantize(IF, data(10, c=True) + data(2, c=False)).plan.remarks["If_z"]
    assert remark.startswith("2 of 10 samples take the else branch of If 'If_z'")
    assert "If_z" not in quantize(IF, data(10, c=True) + data(10, c=False)).plan.remarks


def test_a_loop_that_never_runs() -> None:
    result = quantize(LOOP, data(n=0))
    assert set(layers(result).values()) == {"float"}
    assert result.report.float_nodes["MatMul_m"].startswith("inside the body of Loop 'Loop_y': it never runs")
    assert not any("InlineIf" in text for text in result.plan.remarks.values())


def test_a_branch_inside_a_loop_that_no_step_takes() -> None:
    result = quantize(NESTED, data(n=2, limit=np.float32(99)))
    assert (
        "the then branch of If 'If_m' inside the body of Loop 'Loop_y': it never"
        in result.report.float_nodes["MatMul_f"]
    )
    assert "float" not in (layers(result)["e"], layers(result)["h"])
    assert "If_m" not in result.plan.remarks  # it cannot be inlined


def test_an_if_that_is_excluded() -> None:
    result = quantize(IF, data(c=True) + data(c=False), replace(BASE, nodes_to_exclude=("If_z",)))
    assert not result.plan.bodies
    assert "the else branch of If 'If_z' stays float: 'If_z' is named in" in result.report.float_nodes["If_z"]


def test_a_layer_inside_that_is_excluded() -> None:
    result = quantize(IF, data(c=True) + data(c=False), replace(BASE, nodes_to_exclude=("MatMul_e",)))
    assert [name for name, status in layers(result).items() if status == "float"] == ["e"]


def test_a_layer_inside_that_is_protected() -> None:
    result = quantize(IF, data(c=True) + data(c=False), option(Protect=["MatMul_e"]))
    assert [name for name, status in layers(result).items() if status == "float"] == ["e"]


def test_layers_inside_have_types_of_their_own() -> None:
    """Named in a body, in the graph around it, by a pattern in both; and what is no layer in any."""
    alone = {"activation_type": "float", "weight_type": "int4"}
    feeds, (key, other) = data(c=True) + data(c=False), ("If_z/else_branch", "If_z/then_branch")
    inside = quantize(IF, feeds, option(LayerTypes={"MatMul_e": alone})).plan
    assert inside.bodies[key].nodes["MatMul_e"] == ("v",)
    assert (inside.bodies[key].sites["v"].format.bits, inside.bodies[other].sites["u"].format.bits) == (4, 8)
    around = quantize(IF, feeds, option(LayerTypes={"MatMul_y": alone})).plan
    assert (around.sites["o"].format.bits, around.bodies[key].sites["v"].format.bits) == (4, 8)
    every = quantize(IF, feeds, option(LayerTypes={"MatMul_[ey]": alone})).plan
    assert (every.sites["o"].format.bits, every.bodies[key].sites["v"].format.bits) == (4, 4)
    with pytest.raises(ConfigError, match=r"LayerTypes\['Relu_k.*'\] takes Relu 'Relu_k"):
        quantize(IF, feeds, option(LayerTypes={"Relu_k*": alone}))


def test_a_float16_model_keeps_its_bodies() -> None:
    half = model(IF.replace("float[", "float16[").replace("(k, w)", "(k, u)"))
    for tensor in half.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(WEIGHTS[tensor.name].astype(np.float16), tensor.name))
    feeds = [feed | {"x": feed["x"].astype(np.float16)} for feed in data(c=True)]
    result = ModelQuantizer(BASE).quantize_model(half, None, feeds)
    assert "convert_fp16_to_fp32" in result.report.float_nodes["If_z"]
    assert result.model.ByteSize() <= half.ByteSize() + 500


def test_nothing_quantized_nothing_grows() -> None:
    """Copies that were made for layers that turn out to stay float are not written."""
    result = quantize(IF, data(c=True), replace(BASE, nodes_to_exclude=("*",)))
    assert result.report.bytes["quantized"] == result.report.bytes["float"]


def test_a_body_that_would_make_the_file_larger() -> None:
    """All its weights are read by the branch that stays float, too."""
    text = """g (float[B,64] x, bool c) => (float[B,64] y) {
        y = If (c) <then_branch = a () => (float[B,64] p) { h = MatMul (x, w)  p = MatMul (h, v) },
                    else_branch = b () => (float[B,64] q) { e = MatMul (x, v)  q = MatMul (e, w) }>
    }"""
    result = quantize(text, data(c=True))
    assert "others read its weights as floats" in result.report.float_nodes["MatMul_p"]
    assert set(layers(quantize(text, data(c=True) + data(c=False))).values()) == {"integer"}


def test_constants_of_two_branches_are_not_folded_into_both() -> None:
    text = """g (float[B,64] x, bool c) => (float[B,64] y) {
        y = If (c) <then_branch = a () => (float[B,64] p) { wt = Transpose (w)  e = Expand (w, s)  f = MatMul (x, wt)
                        g0 = ReduceMean <axes = [0, 1]> (e)  p = Add (f, g0) },
                    else_branch = b () => (float[B,64] q) { wt = Transpose (w)  q = MatMul (x, wt) }>
    }"""
    given = model(text)
    given.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHTS["w"], "w"))
    given.graph.initializer.append(onnx.numpy_helper.from_array(np.array([8, N, N]), "s"))
    for feeds, share in ((data(c=True) + data(c=False), 0.6), (data(0), 1.1)):
        config = BASE if feeds else replace(BASE, nodes_to_exclude=("*",))
        result = ModelQuantizer(config).quantize_model(given, None, feeds or data(c=True))
        assert result.model.ByteSize() < share * given.ByteSize()


# Tuning, reports, files of encodings


@pytest.mark.parametrize(
    "options", [{"BiasCorrection": True}, {"WeightCalibrateMethod": "SeqMSE", "BiasCorrection": False}]
)
def test_layers_inside_are_not_tuned(options: dict[str, object]) -> None:
    report = quantize(IF, data(c=True) + data(c=False), option(**options)).report
    assert report.untuned["MatMul_p"] == "inside the then branch of If 'If_z': only layers of the main graph are tuned"
    assert "inside" not in report.untuned.get("MatMul_t", "")


def test_what_a_file_of_encodings_lacks() -> None:
    plan = quantize(IF, data(c=True)).plan
    shapes = {name: array.shape for name, array in WEIGHTS.items()}
    losses = from_plan(plan, shapes | {f"{name}_1": shape for name, shape in shapes.items()}).losses
    assert [loss.tensors for loss in losses if "bodies" in loss.what] == [("If_z/then_branch",)]


# Plans


def test_plans_are_saved_applied_and_compared(tmp_path: Path) -> None:
    feeds = data(n=4, limit=np.float32(0)) + data(n=4, limit=np.float32(99))
    result = quantize(NESTED, feeds)
    result.plan.save(tmp_path / "plan")
    loaded = Plan.load(tmp_path / "plan")
    assert diff(result.plan, loaded) == []
    again = ModelQuantizer(BASE).quantize_model(model(NESTED), None, feeds, resume=loaded)
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    body = loaded.bodies["Loop_y/body"]
    other = replace(loaded, bodies={"Loop_y/body": replace(body, notes={**body.notes, "Tanh_next": "another reason"})})
    (line,) = diff(loaded, other)
    assert line.startswith("Loop_y/body: ~ notes Tanh_next")


def test_a_plan_of_other_bodies_is_refused() -> None:
    plan = quantize(LOOP, data(n=3)).plan
    strange = replace(plan, bodies={"gone/body": plan.bodies["Loop_y/body"]})
    with pytest.raises(PlanError, match="no body that this model has"):
        ModelQuantizer(BASE).quantize_model(model(LOOP), None, data(n=3), resume=strange)


# An If whose branch the user names


def test_inlined_branch() -> None:
    result = quantize(IF, data(c=True), option(InlineIf={"If_z": "then"}))
    assert layers(result) == dict.fromkeys("thpy", "integer")
    assert "If" not in {node.op_type for node in result.model.graph.node}
    assert result.report.sqnr["y"] > 20


def test_inlined_branch_that_a_sample_does_not_take() -> None:
    with pytest.raises(ConfigError, match="If 'If_z' is to take its then branch, and for sample 6"):
        quantize(IF, data(c=True) + data(c=False), option(InlineIf={"If_z": "then"}))


@pytest.mark.parametrize("value", [{"If_z": True}, {"If_z": "both"}])
def test_inlined_branch_without_a_name(value: object) -> None:
    with pytest.raises(ConfigError, match="must say 'then' or 'else'"):
        option(InlineIf=value)
