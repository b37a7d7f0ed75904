"""Extremes per channel: onnxruntime's reductions against numpy, over several feeds, for both ways to write axes."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import Feed, feeds, graph
from text_models import run

from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.graph import Model, io

TEXT = """(float[N,3,6] x) => (float[N,5] y) <float[4,3,3] w, float[4] b, float[16,5] m> {
    [conv] h = Conv (x, w, b) [relu] a = Relu (h) [flat] f = Flatten (a) [gemm] y = Gemm (f, m) }"""


def by_numpy(model: Model, data: list[Feed], tensor: str) -> tuple[np.ndarray, np.ndarray]:
    tapped = io.with_outputs(model, [tensor])
    names = [value.name for value in tapped.graph.outputs]
    batches = [(feed | dict(zip(names, run(tapped, feed), strict=True)))[tensor] for feed in data]
    rows = np.concatenate([np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1) for batch in batches], 1)
    return rows.min(1), rows.max(1)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_it_is_what_numpy_finds(opset: int) -> None:
    model, tensors = graph(TEXT, opset), ["x", "h", "a", "f", "y"]
    data = feeds(model, count=5)
    seen: list[int] = []
    found = channel_extremes(model, iter(data), tensors, seen.append)
    assert seen == [1, 2, 3, 4, 5]
    assert list(found) == tensors
    for tensor in tensors:
        low, high = by_numpy(model, data, tensor)
        # the same sums of up to 16 products, perhaps in another order
        bound = 16 * np.finfo(np.float32).eps * np.abs([low, high]).max()
        np.testing.assert_allclose(found[tensor][0], low, rtol=0, atol=bound)
        np.testing.assert_allclose(found[tensor][1], high, rtol=0, atol=bound)


def test_the_model_is_not_touched() -> None:
    model = graph(TEXT)
    before = io.to_proto(model).SerializeToString(deterministic=True)
    channel_extremes(model, feeds(model), ["h"], lambda done: None)
    assert io.to_proto(model).SerializeToString(deterministic=True) == before


def test_only_what_is_asked_for_is_computed() -> None:
    """Behind `h` the model fails on this input: nothing behind it is run."""
    text = "(float[1,3,N] x) => (float[1,2] y) <float[4,3,3] w, int64[2] s> { h = Conv (x, w) y = Reshape (h, s) }"
    model = graph(text, s=np.array([1, 2]))
    found = channel_extremes(model, [{"x": np.ones((1, 3, 9), np.float32)}], ["h"], lambda done: None)
    assert found["h"][0].shape == (4,)


@pytest.mark.parametrize(
    "text",
    [
        "(float[N] x) => (float[N] y) { y = Relu (x) }",
        "(float[2,N] x) => (float[2,N] y) { y = Relu (x) }",
        "(int64[2,3] x) => (int64[2,3] y) { y = Abs (x) }",
    ],
)
def test_tensors_without_a_known_axis_of_channels_are_left_out(text: str) -> None:
    model = graph(text)
    assert channel_extremes(model, feeds(model), ["y", "nowhere"], lambda done: None) == {}


def test_more_samples_only_widen_the_range() -> None:
    model = graph(TEXT)
    data = feeds(model, count=4)
    some = channel_extremes(model, data[:2], ["h"], lambda done: None)["h"]
    all_ = channel_extremes(model, data, ["h"], lambda done: None)["h"]
    assert (all_[0] <= some[0]).all()
    assert (all_[1] >= some[1]).all()
