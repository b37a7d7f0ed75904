"""Means and variances per channel of samples of which some hold no values."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_models import graph
from text_models import normal

from quark_onnx.engine.channel_extremes import channel_extremes
from quark_onnx.engine.channel_moments import channel_moments

TEXT = "(float[N,3,M] x) => (float[N,3,M] y) { y = Relu (x) }"
EMPTY = {"x": np.zeros((1, 3, 0), np.float32)}


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("empty", [(1, 3, 0), (2, 3, 0), (0, 3, 5)])
def test_samples_without_values_count_for_nothing(empty: tuple[int, ...], opset: int) -> None:
    model, wanted = graph(TEXT, opset), [("x", 1), ("y", 1)]
    data = [{"x": normal(2, 3, 5, seed=i) + 2} for i in range(4)]
    mixed = [{"x": np.zeros(empty, np.float32)}, *data[:2], {"x": np.zeros(empty, np.float32)}, *data[2:]]
    plain, found = (channel_moments(model, feeds, wanted, lambda done: None) for feeds in (data, mixed))
    assert found.keys() == plain.keys() == set(wanted)
    for key, (mean, variance) in found.items():
        np.testing.assert_array_equal(mean, plain[key][0])
        np.testing.assert_array_equal(variance, plain[key][1])
    ends = [channel_extremes(model, feeds, ["x", "y"], lambda done: None) for feeds in (data, mixed)]
    for tensor, pair in ends[0].items():
        np.testing.assert_array_equal(ends[1][tensor], pair)


def test_a_sample_of_zeros_counts() -> None:
    model, zeros = graph(TEXT), {"x": np.zeros((1, 3, 5), np.float32)}
    data = [{"x": np.full((1, 3, 5), 2, np.float32)}, zeros, EMPTY]
    mean, variance = channel_moments(model, data, [("x", 1)], lambda done: None)["x", 1]
    np.testing.assert_array_equal(mean, [1, 1, 1])
    np.testing.assert_array_equal(variance, [1, 1, 1])


def test_of_nothing_there_are_none() -> None:
    assert channel_moments(graph(TEXT), [EMPTY], [("x", 1)], lambda done: None) == {}
    low, high = channel_extremes(graph(TEXT), [EMPTY], ["x"], lambda done: None)["x"]
    assert np.isposinf(low).all()
    assert np.isneginf(high).all()
