"""Whole nets, as their exporters wrote them, against torch; the one that ships, against differences, and quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from finite_differences import runs_in
from onnx import numpy_helper
from torch_nets import torch_gradients

import quark_onnx
from quark_onnx.graph import io
from quark_onnx.graph.gradient import differentiate
from quark_onnx.graph.view import is_constant

ASSETS = Path(__file__).parents[4] / "shared" / "assets"
NETS = {
    "demo": Path(quark_onnx.__file__).parent / "demo" / "digits.onnx",
    "mobilenet": ASSETS / "mobilenet_v1_025_imagenet.onnx",
    "resnet20": ASSETS / "resnet20_cifar10.onnx",
    "minilm": ASSETS / "minilm_l6_stsb.onnx",
}
BOUND = 1e-4
"""Of the difference to torch in float64, relative to the gradient of a tensor, or to the smallest part of all that
float32 can hold: the keys of a Softmax have biases whose gradient is 0."""

LIKE_TORCH = 4
"""How many times the error that torch has in float32 is as good: where a Relu is on in one and off in the other."""


def feed_of(name: str) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    if name == "minilm":
        mask = np.ones((2, 9), np.int64)
        mask[1, 6:] = 0
        return {"input_ids": draw.integers(0, 8000, (2, 9)), "attention_mask": mask}
    shape = {"demo": (4, 1, 8, 8), "mobilenet": (2, 3, 224, 224), "resnet20": (4, 3, 32, 32)}[name]
    return {"input": draw.uniform(-1, 1, shape).astype(np.float32)}


def test_gradients_of_the_demo_in_float64_are_differences() -> None:
    """Along one direction in all weights at once, and in those of each layer; short, so that no Clip begins or ends."""
    proto = in_float64(onnx.load(NETS["demo"]))
    by = [one.name for one in proto.graph.initializer if np.prod(one.dims) > 1]
    made = differentiate(io.load(proto), ["logits"], by)
    run, draw = runs_in(io.to_proto(made.model), np.float64), np.random.default_rng(2)
    weights = {name: numpy_helper.to_array(one) for one in proto.graph.initializer if (name := one.name) in by}
    feed = {"input": draw.uniform(-1, 1, (2, 1, 8, 8)), made.incoming["logits"]: draw.standard_normal((2, 10))}
    gradients = dict(zip(made.gradients, run({**feed, **weights})[1:], strict=True))
    for names in (by, *([name] for name in by[::6])):
        move = {name: 1e-8 * draw.standard_normal(weights[name].shape) for name in names}
        ends = [run({**feed, **weights, **{k: weights[k] + s * move[k] for k in names}})[0] for s in (1, -1)]
        found = float(((ends[0] - ends[1]) * feed[made.incoming["logits"]]).sum()) / 2
        products = np.concatenate([(gradients[name] * move[name]).ravel() for name in names])
        assert abs(found - products.sum()) <= BOUND * np.linalg.norm(products), names


def in_float64(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, whose floats are all initializers, inputs or computed of these."""
    for one in proto.graph.initializer:
        if one.data_type == 1:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float64), one.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = 11
    del proto.graph.value_info[:]
    return proto


def test_a_quantized_model_computes_what_it_did_and_each_weight_and_scale_gets_a_gradient() -> None:
    feeds = [feed_of("demo")]
    config = quark_onnx.get_default_config("S8S8_AAWS")
    quantized = quark_onnx.ModelQuantizer(quark_onnx.Config(config)).quantize_model(NETS["demo"], None, feeds).model
    model = io.load(quantized)
    decoded = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    weights = [node.outputs[0].name for node in decoded if is_constant(node.inputs[0])]
    scales = [node.inputs[1].name for node in decoded if not is_constant(node.inputs[0])]
    made = differentiate(model, ["logits"], [*weights, *scales])
    assert (made.stops, made.unreached) == ((), ())
    y = runs_in(io.to_proto(model), np.float32)(feeds[0])[0]
    weight = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    again, *found = runs_in(io.to_proto(made.model), np.float32)({**feeds[0], made.incoming["logits"]: weight})
    np.testing.assert_array_equal(again, y)
    assert all(np.isfinite(gradient).all() and gradient.any() for gradient in found)


@pytest.mark.parametrize("name", NETS)
def test_gradients_by_all_weights_are_those_of_torch(name: str) -> None:
    pytest.importorskip("torch", reason="torch, to compare with, is not installed")
    if not NETS[name].is_file():
        pytest.skip(f"{NETS[name]} is not there")
    errors = errors_of(name).items()
    worse = {key: (ours, other) for key, (ours, other) in errors if ours > max(BOUND, LIKE_TORCH * other)}
    assert worse == {}


def errors_of(name: str) -> dict[str, tuple[float, float]]:
    """By tensor: our error, and that of torch in float32."""
    proto, feed = onnx.load(NETS[name]), feed_of(name)
    by = [one.name for one in proto.graph.initializer if one.data_type == 1 and np.prod(one.dims) > 1]
    made = differentiate(io.load(proto), [proto.graph.output[0].name], by)
    assert (made.stops, made.unreached) == ((), ())
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    graph = io.to_proto(made.model).SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    y, single = torch_gradients(proto, feed, by, np.float32)
    weight = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    _, *found = session.run(None, {**feed, **dict.fromkeys(made.incoming.values(), weight)})
    _, wanted = torch_gradients(proto, feed, by, np.float64)
    least = 1e-6 * max(float(np.linalg.norm(gradient)) for gradient in wanted)
    errors = {}
    for key, ours, other, true in zip(made.gradients, found, single, wanted, strict=True):
        size = float(np.linalg.norm(true)) + least
        errors[key] = float(np.linalg.norm(ours - true) / size), float(np.linalg.norm(other - true) / size)
    return errors
