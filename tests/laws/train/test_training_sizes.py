"""Gradients go through what resizes where the samples have sizes that the model leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from training_values import values_of
from tuning_cases import case

from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.stages.train.step import Step
from quark_onnx.stages.train.training_graph import training_graph

PYRAMID = """g (float[N, 3, H, W] x) => (float[N, 2, A, B] y) {
    a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1) r = Relu (a)
    u = Resize <mode = "%s"> (r, , scales) c = Conv <pads = [1, 1, 1, 1]> (x, w2) s = Add (u, c) y = Conv (s, w3) }"""


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(6, 8), (8, 8)])
def test_sizes_of_samples_open_the_way_through_a_resize(mode: str, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 3, 3, 3), "w3": (2, 4, 1, 1)}
    arrays = {name: draw.standard_normal(shape).astype(np.float32) / 3 for name, shape in shapes.items()}
    feeds = [{"x": draw.standard_normal((1, 3, *size)).astype(np.float32)} for _ in range(4)]
    made = case(PYRAMID % mode, feeds, {**arrays, "scales": np.array([1, 1, 2, 2], np.float32)})
    blind = training_graph(made.model, made.plan, Losses())
    assert [stop.op_type for stop in blind.stops] == ["Resize"]
    assert blind.weights["w1"] in blind.unreached

    graph = training_graph(made.model, made.plan, Losses(), shapes={"x": (None, 3, *size)})
    assert (graph.stops, graph.unreached) == ((), ())
    values, step = values_of(graph, made.model, made.plan), Step(graph, made.model)
    shards = [made.feeds[0], {"x": np.concatenate([feed["x"] for feed in feeds[:3]])}]
    for shard in shards:
        found = step.gradients(values, shard)
        assert found.samples == len(shard["x"])
        assert found.of[graph.weights["w1"]].any()
    before = Step(blind, made.model).evaluate(values_of(blind, made.model, made.plan), shards[1])
    np.testing.assert_array_equal(step.evaluate(values, shards[1]).outputs["y"], before.outputs["y"])


def test_sizes_that_differ_stay_open() -> None:
    draw = np.random.default_rng(0)
    arrays = {name: draw.standard_normal((4, 3, 3, 3)).astype(np.float32) / 3 for name in ("w1", "w2")}
    arrays |= {"b1": np.zeros(4, np.float32), "w3": draw.standard_normal((2, 4, 1, 1)).astype(np.float32)}
    feeds = [{"x": draw.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    made = case(PYRAMID % "nearest", feeds, {**arrays, "scales": np.array([1, 1, 2, 2], np.float32)})
    half = training_graph(made.model, made.plan, Losses(), shapes={"x": (None, 3, 8, None), "z": (None, 1)})
    assert [stop.op_type for stop in half.stops] == ["Resize"]
    other = {"x": draw.standard_normal((1, 3, 8, 10)).astype(np.float32)}
    assert Step(half, made.model).gradients(values_of(half, made.model, made.plan), other).samples == 1
