"""Kernels that fail on a quantized model: whose fault it is, which node, what is done about it, and on which target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx import DataError, ModelError, ModelQuantizer, get_default_config
from quark_onnx.core.records import UNFIT
from quark_onnx.engine import proof_for_target
from quark_onnx.engine.ledger_rows import UNSEEN
from quark_onnx.engine.runner import Runner, _node
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel
from quark_onnx.report.build import Measure, report_of
from quark_onnx.result import Result

FEED = {"x": normal(1, 4, 2, 2)}


def pooled(scale: float) -> Runner:
    """A pool whose kernel takes scales up to 256 · 4 times that of its output."""
    text = f"""g (float[1,4,2,2] x) => (float[1,4,1,1] y) <float s = {{{scale}}}, float t = {{1}}, uint8 m = {{128}}> {{
        p = QuantizeLinear (x, s, m)  a = DequantizeLinear (p, s, m)  [pool] b = GlobalAveragePool (a)
        r = QuantizeLinear (b, t, m)  y = DequantizeLinear (r, t, m) }}"""
    return Runner(io.load(text_model(text)))


def test_a_quantized_model_that_fails_is_not_the_fault_of_the_data() -> None:
    with pytest.raises(
        ModelError, match=r"fails on the quantized model: .*out of computation range.*nodes_to_exclude"
    ) as told:
        pooled(1e5)(FEED)
    assert told.value.node == "pool"
    assert pooled(1.0)(FEED)[0].shape == (1, 4, 1, 1)


def test_twin_what_a_float_model_cannot_run_on_is() -> None:
    runner = Runner(io.load(text_model("g (float[N,4] x, float[M,4] z) => (float[A,4] y) { [n] y = Add (x, z) }")))
    with pytest.raises(DataError, match=r"fails on the input x \(2, 4\), z \(3, 4\)"):
        runner({"x": normal(2, 4), "z": normal(3, 4)})


def test_what_a_feed_holds_besides_is_not_blamed() -> None:
    runner = Runner(io.load(text_model("g (float[N,4] x, float[M,4] z) => (float[A,4] y) { [n] y = Add (x, z) }")))
    with pytest.raises(DataError, match=r"fails on the input x \(2, 4\), z \(3, 4\): "):
        runner({"x": normal(2, 4), "z": normal(3, 4), "labels": np.arange(2)})


def test_data_that_no_float_model_has_run_on_may_be_at_fault() -> None:
    """A simulation observes a model whose parameters are quantized."""
    text = "g (float[N,4] x, float[M,4] z) => (float[A,4] y) { m = MatMul (x, w)  y = Add (m, z) }"
    sim = QuantizationSimModel(text_model(text, w=normal(4, 4)))
    with pytest.raises(DataError, match=r"fails on the input x \(2, 4\), z \(3, 4\)"):
        sim.compute_encodings([{"x": normal(2, 4), "z": normal(3, 4)}])
    sim.compute_encodings([{"x": normal(2, 4), "z": normal(1, 4)}])


@pytest.mark.parametrize(
    ("message", "node"),
    [
        ("Non-zero status code returned while running QLinearAdd node. Name:'a/b_1' Status Message: no", "a/b_1"),
        ("Could not find an implementation for QLinearAdd(1) node with name 'n'", "n"),
        ("while running If node. Name:'outer' Status Message: while running Add node. Name:'n' no", "n"),
        ("Node (n 1) Op (QLinearAdd) [ShapeInferenceError] no", "n 1"),
        ('This is an invalid model. In Node, ("n", QLinearAdd, "com.microsoft", -1) : no', "n"),
        ("Load model failed: no such file", ""),
    ],
)
def test_the_node_is_read_from_what_onnxruntime_says(message: str, node: str) -> None:
    assert _node(RuntimeError(message)) == node


# fallback: a kernel that placement does not know to fail -------------------------------------------------------------

MODEL = """g (float[1,4,4,4] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {
    a, b = Split <axis=1> (x, s)  [pool] p = GlobalAveragePool (b)  [after] y = Conv (p, w)  [big] z = Conv (a, v) }"""


INSIDE = """g (float[1,4,4,4] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {
    r = ReduceSum <keepdims=0> (x)  c = Equal (r, r)
    y, z = If (c) <then_branch = t () => (float[A,B,C,D] u, float[E,F,G,H] k) {
        a, b = Split <axis=1> (x, s)
        [pool] p = GlobalAveragePool (b)  [after] u = Conv (p, w)  [big] k = Conv (a, v) },
      else_branch = e () => (float[A,B,C,D] l, float[E,F,G,H] m) { l = Neg (x)  m = Abs (x) }>
}"""


def quantized(loud: float = 1e4, target: str = "cpu", text: str = MODEL, **fields: Any) -> Result:
    arrays = {"s": np.array([2, 2]), "w": normal(3, 2, 1, 1), "v": normal(3, 2, 1, 1, seed=1)}
    data = [{"x": normal(1, 4, 4, 4, seed=i) * np.float32([loud, loud, 1, 1])[:, None, None]} for i in range(4)]
    config = replace(get_default_config("U8S8_AAWS"), target=target, **fields)
    options = {**config.extra_options, "Protect": False}
    return ModelQuantizer(replace(config, extra_options=options)).quantize_model(text_model(text, **arrays), None, data)


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows that the kernels have limits."""
    monkeypatch.setattr("quark_onnx.decided_ranges.without_unfit", lambda model, plan, statistics, target: plan)


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("loud", [1e4, 2.0])
def test_an_operator_whose_kernel_fails_stays_float(loud: float) -> None:
    found = quantized(loud)
    if loud == 2:
        assert "pool" in found.plan.nodes
        return
    assert found.plan.notes["pool"].startswith(f"{UNFIT}onnxruntime ")
    assert found.plan.nodes.keys() >= {"after", "big"}
    assert found.report.outputs["z"].db is not None and found.report.outputs["z"].db > 30
    assert found.plan.fault() is None


@pytest.mark.usefixtures("unlimited")
def test_it_does_so_inside_a_body() -> None:
    found = quantized(text=INSIDE)
    (inside,) = found.plan.bodies.values()
    assert inside.notes["pool"].startswith(f"{UNFIT}onnxruntime ")
    assert inside.nodes.keys() >= {"after", "big"}


@pytest.mark.usefixtures("unlimited")
def test_it_does_so_while_layers_get_their_types() -> None:
    """The first model that is scored fails already."""
    wide = {"activation_type": "int16", "weight_type": "int16"}
    options = {"AutoMixprecision": {"MetricThreshold": -100.0, "TargetLayerConfig": wide}}
    found = quantized(include_auto_mp=True, extra_options=options)
    assert found.report.mixed
    assert found.plan.notes["pool"].startswith(f"{UNFIT}onnxruntime ")


def test_a_failure_that_names_no_quantized_node_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ModelError("broken", "nobody")

    monkeypatch.setattr("quark_onnx.pipeline.prove_for", fails)
    with pytest.raises(ModelError, match="broken"):
        quantized(2.0)


# other targets -------------------------------------------------------------------------------------------------------


def told(found: Result, target: str) -> str:
    (warning,) = [text for text in found.report.warnings if f"the model is for {target}" in text]
    return warning


def test_what_a_cpu_cannot_run_of_a_model_for_another_target_is_told() -> None:
    found = quantized(target="qnn")
    assert "pool" in found.plan.nodes
    warning = told(found, "qnn")
    assert "out of computation range" in warning and "as it is written" in warning
    assert found.report.outputs == found.report.written
    assert found.report.outputs["z"].db is not None and found.report.outputs["z"].db > 30
    assert {row.status for row in found.report.ledger if row.node == "pool"} == {"integer"}


def test_its_report_is_written_without_times() -> None:
    for loud, timed in ((1e4, False), (2.0, True)):
        found = quantized(loud, target="qnn")
        config = replace(get_default_config("U8S8_AAWS"), target="qnn")
        report = report_of(found, config, io.to_proto(found.evidence.model), "m", measure=Measure(memory=False))
        assert (report.latency is not None) is timed
        assert report.layers is not None


def test_twin_what_it_can_run_is_measured_as_it_runs() -> None:
    found = quantized(2.0, target="qnn")
    assert not [text for text in found.report.warnings if "the model is for" in text]


@pytest.mark.parametrize("target", ["tensorrt", "qnn", "vitisai"])
def test_a_model_that_a_cpu_cannot_load_is_judged_as_written(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    def refuses(*_: Any) -> Any:
        raise ModelError("onnxruntime cannot load the model: no kernel")

    monkeypatch.setattr(proof_for_target, "ledger", refuses)
    preset = {"tensorrt": "A8W8", "qnn": "U8S8_AAWS", "vitisai": "XINT8"}[target]
    proto = text_model("g (float[2,4] x) => (float[2,3] y) { [n] y = MatMul (x, w) }", w=normal(4, 3))
    feeds = [{"x": normal(2, 4, seed=i)} for i in range(4)]
    found = ModelQuantizer(replace(get_default_config(preset), target=target)).quantize_model(proto, None, feeds)
    assert "no kernel" in told(found, target)
    assert [row.reason for row in found.report.ledger if row.node in found.plan.nodes] == [UNSEEN]
    assert found.report.outputs["y"].db is not None and found.report.outputs["y"].db > 20


def test_twin_the_same_on_a_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> Any:
        raise ModelError("onnxruntime cannot load the model: no kernel")

    monkeypatch.setattr(proof_for_target, "ledger", refuses)
    with pytest.raises(ModelError, match="no kernel"):
        quantized(2.0)


def test_where_nothing_can_be_run_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> Any:
        raise ModelError("onnxruntime cannot load the model: no kernel")

    for name in ("ledger", "compare"):
        monkeypatch.setattr(proof_for_target, name, refuses)
    found = quantized(2.0, target="qnn")
    assert "nothing was measured: onnxruntime cannot load the model" in told(found, "qnn")
    assert found.report.outputs == {}
