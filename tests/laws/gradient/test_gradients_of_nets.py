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
BOUND = 1e-3
"""Of the difference, relative to the gradient of a tensor: float32, through all layers, on both sides. A Relu that is
on in one of them and off in the other is seen as well."""


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
    assert max(errors_of(name).values()) <= BOUND


def errors_of(name: str) -> dict[str, float]:
    """By tensor: the difference, relative to the gradient."""
    proto, feed = onnx.load(NETS[name]), feed_of(name)
    by = [one.name for one in proto.graph.initializer if one.data_type == 1 and np.prod(one.dims) > 1]
    made = differentiate(io.load(proto), [proto.graph.output[0].name], by)
    assert (made.stops, made.unreached) == ((), ())
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    graph = io.to_proto(made.model).SerializeToString()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    batch = len(next(iter(feed.values())))
    width = {"demo": 10, "mobilenet": 1000, "resnet20": 10, "minilm": 384}[name]
    weight = np.random.default_rng(1).standard_normal((batch, width)).astype(np.float32)
    _, *found = session.run(None, {**feed, **dict.fromkeys(made.incoming.values(), weight)})
    _, wanted = torch_gradients(proto, feed, by, weight)
    pairs = zip(made.gradients, found, wanted, strict=True)
    return {key: float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-9)) for key, a, b in pairs}
