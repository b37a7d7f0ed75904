"""Models that onnxruntime runs and onnx.checker refuses, or that the IR does not hold: they are taken as they are.

Each case is what onnxruntime runs (and our result computes the same, quantized); each twin is what it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx_text import parse_model
from text_models import normal, text_model

from quark_onnx import ModelError, ModelQuantizer, Result, get_default_config
from quark_onnx.engine.opened_model import open_model
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import ModelProto, io
from quark_onnx.graph.normal_form import remarks
from quark_onnx.graph.view import shape
from quark_onnx.graph.without_weights import complaint
from quark_onnx.quantsim import QuantizationSimModel

FEEDS = [{"x": normal(2, 8, seed=i)} for i in range(4)]
W = normal(8, 8) / 3


def run(model: ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime makes of the bytes of the model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def base(nodes: str = "a = MatMul (x, w) b = Relu (a) y = MatMul (b, w)", opset: int = 17) -> ModelProto:
    return text_model(f"g (float[2, 8] x) => (float[2, 8] y) {{ {nodes} }}", opset, w=W)


def function(nodes: str, opset: int) -> ModelProto:
    """A model of opset 17 with `nodes`, from a to b, in a function of another operator set."""
    made = parse_model(
        f"""<ir_version: 8, opset_import: ["": 17, "my": 1]>
        g (float[2, 8] x) => (float[2, 8] y) {{ c = MatMul (x, w) d = my.f (c) y = MatMul (d, w) }}
        <domain: "my", opset_import: ["": {opset}]> f (a) => (b) {{ {nodes} }}"""
    )
    made.graph.initializer.append(numpy_helper.from_array(W, "w"))
    return made


def nested() -> ModelProto:
    made = function("b = Softmax <axis = 1> (a)", 11)
    outer = onnx.parser.parse_function('<domain: "my", opset_import: ["": 17, "my": 1]> g (a) => (b) { b = my.f (a) }')
    made.functions.append(outer)
    made.graph.node[1].op_type = "g"
    return made


def sparse(flat: bool) -> onnx.SparseTensorProto:
    kept = np.where(np.abs(W) > 0.3, W, 0)
    places = np.flatnonzero(kept) if flat else np.argwhere(kept)
    values = numpy_helper.from_array(kept[kept != 0], "w")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "i"), kept.shape)


def with_sparse_weight(model: ModelProto, flat: bool) -> None:
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse(flat))


def with_sparse_constant(model: ModelProto) -> None:
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse(True)))


def shuffled(model: ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def again(model: ModelProto, name: str, array: np.ndarray = W) -> None:
    model.graph.initializer.append(numpy_helper.from_array(array, name))


TAKEN: dict[str, Callable[[ModelProto], object]] = {
    "output without a shape": lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
    "output without a type": lambda m: m.graph.output[0].ClearField("type"),
    "output twice": lambda m: m.graph.output.append(m.graph.output[0]),
    "graph without a name": lambda m: m.graph.ClearField("name"),
    "nodes in reverse": shuffled,
    "initializer twice": lambda m: again(m, "w"),
    "initializer without a name": lambda m: again(m, ""),
    "sparse weight, flat indices": lambda m: with_sparse_weight(m, True),
    "sparse weight, coordinates": lambda m: with_sparse_weight(m, False),
    "sparse constant": with_sparse_constant,
    "metadata twice": lambda m: [m.metadata_props.add(key="k", value=value) for value in "ab"],
    "IR version 1": lambda m: setattr(m, "ir_version", 1),
    "domain ai.onnx": lambda m: setattr(m.graph.node[1], "domain", "ai.onnx"),
    "domain without an operator set": lambda m: m.graph.node[1].MergeFrom(
        onnx.NodeProto(op_type="Gelu", domain="com.microsoft")
    ),
    "value_info twice": lambda m: [
        m.graph.value_info.append(helper.make_tensor_value_info("a", 1, [2, dim])) for dim in (8, 5)
    ],
    "initializer that is an input": lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 1, [8, 8])),
}


def quantized(model: ModelProto) -> Result:
    before = model.SerializeToString(deterministic=True)
    result = ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(model, None, FEEDS)
    assert model.SerializeToString(deterministic=True) == before
    return result


def assert_near(model: ModelProto, result: Result) -> None:
    """The quantized model is that of this very model, as onnxruntime reads it."""
    onnx.checker.check_model(result.model, full_check=True)
    for expected, found in zip(run(model, FEEDS[0]), run(result.model, FEEDS[0]), strict=True):
        assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("name", TAKEN)
def test_what_onnxruntime_runs(name: str) -> None:
    model = base()
    TAKEN[name](model)
    result = quantized(model)
    assert result.report.fused["MatMul"] == (2, 2)
    assert_near(model, result)


def test_a_repeated_initializer_that_says_something_else() -> None:
    model = base()
    again(model, "w", -W)
    result = quantized(model)
    assert_near(model, result)
    assert "initializer 'w' is in the model twice: the first counts" in str(result.report.warnings)
    again(model, "w", W[:4])
    with pytest.raises(ModelError, match="initializer name is not unique"):
        quantized(model)


@pytest.mark.parametrize(
    ("model", "warns"),
    [
        (function("b = Relu (a)", 14), False),
        (function("h = Abs (a) b = Sqrt (h)", 13), False),
        (function("b = Softmax <axis = 1> (a)", 11), True),
        (nested(), True),
    ],
    ids=["the same", "two nodes", "another meaning", "nested"],
)
def test_functions_of_another_operator_set(model: ModelProto, warns: bool) -> None:
    """onnxruntime takes their nodes for those of the model's; where that is another operator the user is told."""
    result = quantized(model)
    assert_near(model, result)
    assert ("is of opset 11, the model of 17: Softmax in it" in str(result.report.warnings)) is warns


def test_functions_that_onnxruntime_does_not_read_in_the_operator_set_of_the_model() -> None:
    model = function("h = Unsqueeze <axes = [0]> (a) b = Squeeze <axes = [0]> (h)", 11)
    with pytest.raises(ModelError, match=r"Unsqueeze.*inline it before: onnx\.inliner\.inline_local_functions"):
        quantized(model)


def test_large_weights_that_are_inputs_too() -> None:
    """As exporters for IR version 3 wrote them: the checker has nothing against it, with or without their numbers."""
    text = "g (float[2, 64] x, float[64, 64] w) => (float[2, 64] y) { y = MatMul (x, w) }"
    model = text_model(text, 8, 3, w=normal(64, 64))
    assert complaint(io.read(model)) is None
    assert [value.name for value in io.read(model).graph.inputs] == ["x", "w"]


def test_a_function_that_nobody_calls_may_be_wrong() -> None:
    model = function("b = Relu (a)", 17)
    model.functions.append(
        onnx.parser.parse_function('<domain: "my", opset_import: ["": 17]> k (a) => (b) { b = No (a) }')
    )
    assert_near(model, quantized(model))


@pytest.mark.parametrize(("preset", "epsilon"), [("S8S8_AAWS", 1e-5), ("A16W8", 0.5)])
def test_the_group_normalization_that_was_taken_back(preset: str, epsilon: float) -> None:
    """That of opsets 18 to 20, with a scale for each group; the result is valid, also where the opset is raised."""
    text = f"""g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {{ a = Conv <pads = [1, 1, 1, 1]> (x, w)
        b = GroupNormalization <num_groups = 2, epsilon = {epsilon}> (a, s, t) y = Conv (b, v) }}"""
    s, t = np.array([1, 2], np.float32), np.array([0.5, 0], np.float32)
    model = text_model(text, 18, w=normal(4, 4, 3, 3), v=normal(4, 4, 1, 1), s=s, t=t)
    feeds = [{"x": normal(1, 4, 6, 6, seed=i)} for i in range(3)]
    (expected,), (read,) = run(model, feeds[0]), Runner(io.read(model))(feeds[0])
    np.testing.assert_allclose(read, expected, atol=1e-5)
    result = ModelQuantizer(get_default_config(preset)).quantize_model(model, None, feeds)
    onnx.checker.check_model(result.model, full_check=True)
    (found,) = run(result.model, feeds[0])
    assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


def test_that_of_later_opsets_stays_and_what_is_gone_is_refused() -> None:
    text = "g (float[1, 4, 6] x) => (float[1, 4, 6] y) { y = GroupNormalization <num_groups = 2> (x, s, t) }"
    model = text_model(text, 21, 10, s=np.ones(4, np.float32), t=np.zeros(4, np.float32))
    assert [node.op_type for node in io.read(model).graph] == ["GroupNormalization"]
    model = base("a = MatMul (x, w) y = Upsample (a, w)")
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*Upsample is deprecated.*export the model again"):
        quantized(model)


def test_inputs_without_a_shape() -> None:
    """Their rank is that of the data; the result says no more of its inputs than the model did."""
    model = base()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    result = quantized(model)
    assert result.report.fused["MatMul"][0]
    assert not result.model.graph.input[0].type.tensor_type.HasField("shape")


REFUSED: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "a cycle": (lambda m: m.graph.node[0].input.__setitem__(0, "b"), "not acyclic.*damaged: export it again"),
    "input of nobody": (lambda m: m.graph.node[0].input.__setitem__(0, "z"), "'z'.*export it again"),
    "output of nobody": (lambda m: setattr(m.graph.output[0], "name", "z"), r"\(z\)"),
    "no output": (lambda m: m.graph.ClearField("output"), "it has no outputs"),
    "attribute without a type": (lambda m: m.graph.node[1].attribute.add(name="k"), "attribute"),
    "attribute twice": (
        lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("k", 1)] * 2),
        "'k' appeared multiple times",
    ),
    "no operator set": (lambda m: m.ClearField("opset_import"), "opset"),
    "equal names": (
        lambda m: [setattr(node, "name", "n") for node in m.graph.node],
        r"two nodes with same node name \(n\); give each node a name of its own",
    ),
    "unknown operator of a domain": (
        lambda m: m.graph.node[1].MergeFrom(onnx.NodeProto(op_type="Fancy", domain="my.ops")),
        "my.ops:Fancy.*--custom-ops FILE, or extra option UserCustomOpLibPath",
    ),
    "defined twice": (lambda m: m.graph.node.append(m.graph.node[0]), "single static assignment"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnxruntime_refuses(name: str) -> None:
    """With its reason, and the way out."""
    spoil, message = REFUSED[name]
    model = base()
    spoil(model)
    with pytest.raises(ModelError, match=message):
        quantized(model)


BATCH_NORM = "a = MatMul (x, w) b{more} = BatchNormalization <training_mode = {mode}> (a, s, t, m, v) y = MatMul (b, w)"
PARAMETERS = {key: np.abs(normal(8, seed=seed)) + 0.5 for seed, key in enumerate("stmv")}


def normalized(more: str, mode: int) -> ModelProto:
    model = base(BATCH_NORM.format(more=more, mode=mode))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in PARAMETERS.items())
    return model


def test_a_batch_normalization_in_training_mode() -> None:
    """onnxruntime runs it with all its outputs, and refuses it with one; either way the user hears what to do."""
    assert "training mode" in str(remarks(open_model(normalized(", c, d", 1))))
    assert remarks(open_model(normalized("", 0))) == ()
    with pytest.raises(ModelError, match=r"Training_mode.*export the model in eval mode"):
        quantized(normalized("", 1))


def test_float64_that_onnxruntime_does_not_compute() -> None:
    text = "g (double[1, 2, 4, 4] x) => (double[1, 2, 2, 2] y) { y = Conv (x, w) }"
    model = text_model(text, w=normal(2, 2, 3, 3).astype(np.float64))
    with pytest.raises(ModelError, match=r"Conv.*convert the model to float32"):
        ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(model, None, [{"x": np.ones((1, 2, 4, 4))}])


def test_a_simulation_takes_them_too(tmp_path: Path) -> None:
    model = base()
    shuffled(model)
    model.graph.output[0].ClearField("type")
    onnx.save(model, tmp_path / "model.onnx")
    sim = QuantizationSimModel(tmp_path / "model.onnx")
    sim.compute_encodings(FEEDS)
    (expected,), (found,) = run(model, FEEDS[0]), sim.session.run(None, FEEDS[0])
    assert np.abs(expected - found).max() < 0.05 * np.abs(expected).max()


def test_an_output_without_a_type_behind_a_batch_of_minus_one() -> None:
    """What follows from the inputs follows from what they mean: −1 and 8 rows are not 7."""
    model = base("a = MatMul (x, w) y = Concat <axis = 0> (a, w)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model.graph.output[0].ClearField("type")
    (output,) = io.read(model).graph.outputs
    assert shape(output) == (None, 8)


def test_what_is_read_is_what_runs() -> None:
    """The model that is read in its normal form computes, to the bit, what onnxruntime computes of the file."""
    for spoil in TAKEN.values():
        model = base()
        spoil(model)
        for expected, found in zip(run(model, FEEDS[0]), Runner(io.read(model))(FEEDS[0]), strict=False):
            np.testing.assert_array_equal(expected, found)
