"""Quantizers behind switches: all on is the quantized model, all off is the float one, and each acts alone."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import feeds, graph, quantized, run

from quark_onnx.engine.runner import Runner, executed_model
from quark_onnx.engine.switchable_model import Switchable, without_switches

TEXT = """(float[2,4] x) => (float[2,3] y, float[2,4] z) <float[4,4] v, float[4] b, float[4,3] w>
{ h = Gemm (x, v, b) g = Relu (h) z = Sigmoid (g) y = MatMul (g, w) }"""


def test_all_on_is_the_quantized_model_and_all_off_the_float_one() -> None:
    made = quantized(graph(TEXT))
    switchable = Switchable(made.model, made.plan)
    assert set(switchable.tensors) == {name for name, site in made.plan.sites.items() if site.role != "bias"}
    for feed in feeds(made.model, seed=1):
        # both compute in float32 what is written; only the order of sums may differ
        for on in (switchable(feed), without_switches(made.model, made.plan)(feed)):
            for found, written in zip(on, run(made.quantized, feed), strict=True):
                np.testing.assert_allclose(found, written, rtol=1e-5, atol=1e-6)
        for off, exact in zip(switchable(feed, switchable.tensors), run(made.model, feed), strict=True):
            # the bias has no switch: it counts in steps of input scale · weight scale
            np.testing.assert_allclose(off, exact, atol=4e-4)


def test_a_switch_is_for_its_tensor_alone() -> None:
    made = quantized(graph(TEXT))
    switchable = Switchable(made.model, made.plan)
    (feed,) = feeds(made.model, 1, seed=2)
    base = switchable(feed)[0]
    without = {tensor: switchable(feed, {tensor})[0] for tensor in ("x", "v", "w", "g")}
    assert all((changed != base).any() for changed in without.values())
    assert (switchable(feed, {"other"})[0] == base).all()


@pytest.mark.parametrize("name", ["x", "y"])
def test_inputs_and_outputs_keep_their_names(name: str) -> None:
    """A quantized input that is read twice, and a quantized tensor that leaves the model."""
    model = graph(
        "(float[2,4] x) => (float[2,4] y, float[2,4] z) <float[4,4] v> { y = MatMul (x, v) z = MatMul (y, v) }"
    )
    made = quantized(model)
    assert name in made.plan.sites
    switchable = Switchable(made.model, made.plan)
    (feed,) = feeds(made.model, 1)
    np.testing.assert_allclose(switchable(feed, {name})[1], run(made.model, feed)[1], atol=0.3)
    assert switchable.outputs == ["y", "z"]


@pytest.mark.parametrize(("options", "switched"), [({}, False), ({"Int16Bias": True}, True)])
def test_biases_have_a_switch_where_they_have_a_scale(options: dict[str, bool], switched: bool) -> None:
    made = quantized(graph(TEXT, 21), **options)
    switchable = Switchable(made.model, made.plan)
    assert ("b" in made.plan.sites, "b" in switchable.tensors) == (True, switched)
    (feed,) = feeds(made.model, 1, seed=3)
    without, alone = (switchable(feed, {*switchable.tensors} - names)[0] for names in (set(), {"b"}))
    assert (without != alone).any() == switched
    if switched:  # with all off nothing is left but what the order of sums makes
        np.testing.assert_allclose(
            switchable(feed, switchable.tensors)[0], run(made.model, feed)[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("many", [0, 10**6])
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_one_input_switches_all(many: int, opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the operator set has for cutting it up; also where nothing is optimized, as in graphs of many nodes."""
    monkeypatch.setattr("quark_onnx.engine.switchable_model.MANY", many)
    made = quantized(graph(TEXT, opset))
    switchable = Switchable(made.model, made.plan)
    assert len(switchable._run.inputs) == 2
    (feed,) = feeds(made.model, 1, seed=4)
    np.testing.assert_allclose(switchable(feed)[0], run(made.quantized, feed)[0], rtol=1e-5, atol=1e-6)
    changed = {name: (switchable(feed, {name})[0] != switchable(feed)[0]).any() for name in switchable.tensors}
    assert changed == {name: name != "z" for name in switchable.tensors}


def test_a_graph_of_many_nodes_has_the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which onnxruntime is not asked for the best layout; floats may be added in another order."""
    made = quantized(graph(TEXT))
    (feed,) = feeds(made.model, 1, seed=5)
    found = []
    for many in (10**6, 0):
        monkeypatch.setattr("quark_onnx.engine.runner.MANY", many)
        with executed_model(made.quantized) as executed:
            found.append((sorted(node.op_type for node in executed.graph), Runner(made.quantized)(feed)))
    (kernels, answers), (others, same) = found
    assert kernels == others
    assert "QGemm" in kernels
    for one, other in zip(answers, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("declared", ["1", "N"])
def test_a_batch_that_an_output_only_declares_to_be_one(declared: str) -> None:
    """onnxruntime runs batches of 2 all the same, with quantizers in branches, too."""
    made = quantized(
        graph(
            f"(float[N,4] x) => (float[{declared},4] y, float[N,4] z) <float[4,4] v>"
            " { y = MatMul (x, v) z = MatMul (y, v) }"
        )
    )
    (feed,) = feeds(made.model, 1)
    assert len(feed["x"]) == 2
    for run_all in (Switchable(made.model, made.plan), without_switches(made.model, made.plan)):
        assert [len(array) for array in run_all(feed)] == [2, 2]
