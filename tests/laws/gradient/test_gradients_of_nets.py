"""Whole nets, as their exporters wrote them, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from torch_nets import torch_gradients

import quark_onnx
from quark_onnx.graph import io
from quark_onnx.graph.gradient import differentiate

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
